"""What cannot become a plan is refused by name, with the source line where export kept it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import reference as trt
from trt_rt.errors import CompileError

X = torch.zeros(3, 4)


class Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


class Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x + self.calls


class Untraceable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x


class Strided(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided(x, (2,), (1,))


class Size(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x + 1, x.shape[0]


class Constant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x + 1, 7


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


class Sparse(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to_sparse().to_dense()


@pytest.mark.parametrize(
    ("build", "reasons"),
    [
        (lambda: trt.build(Branch(), (X,)), ["cond", "holds another graph"]),
        (lambda: trt.build(Counts(), (X,)), ["test_build.py", "'calls'", "weights are constant"]),
        (lambda: trt.build(Untraceable(), (X,)), ["torch.export cannot export Untraceable"]),
        (lambda: trt.build(Strided(), (X,)), ["aten.as_strided.default", "test_build.py", "may not use"]),
        (lambda: trt.build(Sparse(), (X,)), ["sparse"]),
        (
            lambda: trt.build(Size(), (X,), dynamic_shapes={"x": {0: torch.export.Dim("b")}}),
            ["which is a number: return a tensor"],
        ),
        (lambda: trt.build(Constant(), (X,)), ["returns 7, which is no tensor"]),
        (lambda: trt.build(torch.nn.Linear(4, 4, device="meta"), (X.to("meta"),)), ["on meta"]),
        (lambda: trt.build(Identity(), (X.double(),)), ["'x' is torch.float64"]),
        (lambda: trt.build(Identity(), (torch.zeros(*[1] * 9),)), ["'x' has 9 dimensions"]),
        (lambda: trt.build(Identity()), ["arg_inputs is needed"]),
        (lambda: trt.build(Identity(), (X,), device="cuda:1"), ["not 'cuda:1'"]),
        (lambda: trt.build(Identity(), (X,), device="meta"), ["device must be 'cpu'"]),
        (lambda: trt.build(Identity(), (X,), input_names=["a", "b"]), ["input_names must be 1"]),
        (lambda: trt.build(Identity(), (X,), output_names=[]), ["output_names must be 1"]),
        (lambda: trt.build(Identity(), (X,), output_names=["x"]), ["must all have different names"]),
        (lambda: trt.build(Identity(), (X,), aliases={"z": "x"}), ["aliases names ['z']"]),
        (lambda: trt.build(Identity(), (X,), aliases={"output0": "z"}), ["aliases names ['z']"]),
        (lambda: trt.build(Identity(), (X,), shape_inputs=["z"]), ["shape_inputs names ['z']"]),
        (lambda: trt.build(Identity(), (X,), shape_inputs=["x"]), ["a shape tensor is int32"]),
        (lambda: trt.build(Identity(), (X.long(),), shape_inputs=["x"]), ["at most one dimension"]),
    ],
)
def test_refused(build: Callable[[], Any], reasons: list[str]) -> None:
    with pytest.raises(CompileError) as caught:
        build()
    for reason in reasons:
        assert reason in str(caught.value)


def test_the_same_network_gives_the_same_plan() -> None:
    network = plans.convolutions()
    first, second = (trt.build(network, (torch.zeros(2, 1, 8, 8),)) for _ in range(2))
    assert first == second


def test_the_network_stays_as_it_was() -> None:
    network = plans.convolutions()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trt.build(network, (torch.zeros(2, 1, 8, 8),))
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_gradients_and_autocast_in_the_network() -> None:
    class Mixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y = x + 1
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return (y @ y.t()).float()

    x = torch.randn(3, 4)
    from tests.reference.harness import Session

    torch.testing.assert_close(Session(trt.build(Mixed(), (x,))).run(x)[0], Mixed()(x))


def test_importing_the_backend_does_not_import_torch_export() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import trt_rt.reference; "
        "print([name for name in set(sys.modules) - before if name.startswith('torch')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
