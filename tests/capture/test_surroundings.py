"""Modes and transforms of PyTorch around the calls of a program that is run as one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import TRTModule
from trt_rt.errors import InputValueError
from trt_rt.runtime import enable_cudagraphs

pytestmark = pytest.mark.behaviour(39)


class _Program(torch.nn.Module):
    def __init__(self, device: str, body: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.engine = TRTModule(plans.affine(device=device), device=device)
        self.body = body

    def forward(self, x: torch.Tensor, *args: torch.Tensor) -> torch.Tensor:
        return self.body(self.engine(x), *args)


class _Counting(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [FakeTensorMode, _Counting], ids=["FakeTensorMode", "TorchDispatchMode"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first call", "replay"])
def test_a_mode_around_a_call_changes_nothing(device: str, mode: Any, is_first: bool) -> None:
    x = torch.randn(3, 7, device=device)
    with enable_cudagraphs(_Program(device, lambda y: y * 2), whole_graph=True) as run:
        if not is_first:
            run(x)
        with mode():
            inside = run(x)
        for result in (inside, run(x), run(x + 1) - run(x + 1) + inside):
            assert type(result) is torch.Tensor
            torch.testing.assert_close(result, eager_affine(x) * 2)


@pytest.mark.parametrize("is_first", [True, False], ids=["first call", "replay"])
def test_a_transform_around_a_call_changes_nothing(device: str, is_first: bool) -> None:
    x = torch.randn(3, 7, device=device)
    with enable_cudagraphs(_Program(device, lambda y: y * 2), whole_graph=True) as run:
        if not is_first:
            run(x)
        gradient = torch.func.grad(lambda v: (v * run(x)).sum())(torch.ones_like(x)[:, :1])
        expected = (eager_affine(x) * 2).sum(1, keepdim=True)
        torch.testing.assert_close(gradient, expected)
        torch.testing.assert_close(run(x), eager_affine(x) * 2)


@pytest.mark.parametrize(
    "overlapping",
    [
        lambda state: state[:1].expand(3, 7),
        lambda state: state.as_strided((3, 7), (2, 1)),
    ],
    ids=["expand", "as_strided"],
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first call", "replay"])
def test_a_program_does_not_write_to_an_argument_that_overlaps_itself(
    device: str, overlapping: Callable[[torch.Tensor], torch.Tensor], is_first: bool
) -> None:
    def add(y: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        state.add_(1)
        return y + 0

    x = torch.randn(3, 7, device=device)
    state = torch.zeros(5, 7, device=device)
    with enable_cudagraphs(_Program(device, add), whole_graph=True) as run:
        if not is_first:
            run(x, torch.zeros(3, 7, device=device))
        for _ in range(2):
            with pytest.raises(InputValueError, match="overlap"):
                run(x, overlapping(state))
            assert not state.any()
        # Elements that lie apart are no obstacle, in whatever order.
        for apart in (state[::2], torch.zeros(7, 3, device=device).t(), state[:3]):
            before = apart.clone()
            run(x, apart)
            torch.testing.assert_close(apart, before + 1)


def test_a_program_may_read_an_argument_that_overlaps_itself(device: str) -> None:
    x, bias = torch.randn(3, 7, device=device), torch.randn(1, 1, device=device)
    with enable_cudagraphs(_Program(device, lambda y, b: y + b[:, :1]), whole_graph=True) as run:
        for _ in range(2):
            result = run(x, bias.expand(3, 7))
            torch.testing.assert_close(result, eager_affine(x) + bias)
