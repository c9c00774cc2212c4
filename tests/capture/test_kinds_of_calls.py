"""Which calls of a program that is run as one graph share a graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.capture.programs import Program, batch, captures
from tests.reference.plans import eager_affine
from trt_rt import InputError
from trt_rt.runtime import enable_cudagraphs


def test_calls_that_differ_in_what_is_no_tensor(device: str) -> None:
    def body(y: torch.Tensor, factor: Any, *, words: tuple[str, ...] = ()) -> torch.Tensor:
        return y * (factor if type(factor) is not bool else 10) + len(words)

    x = batch(device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            for factor, wanted in ((1, 1), (True, 10), (1.0, 1), (2, 2), (-0.0, 0)):
                torch.testing.assert_close(run(x, factor), eager_affine(x) * wanted)
            torch.testing.assert_close(run(x, 1, words=("a", "b")), eager_affine(x) + 2)
            assert run(x, float("nan")).isnan().all()
        assert captures(run) == 7


def test_nested_arguments_and_results(device: str) -> None:
    def body(y: torch.Tensor, more: dict[str, list[torch.Tensor]]) -> dict[str, Any]:
        return {"sum": (y + more["a"][0], [more["a"][1] * 2]), "number": 5, "nothing": None}

    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(3):
            x, a, b = batch(device), batch(device), batch(device, 2)
            result = run(x, {"a": [a, b]})
            assert (result["number"], result["nothing"]) == (5, None)
            torch.testing.assert_close(result["sum"], (eager_affine(x) + a, [b * 2]))
        torch.testing.assert_close(run(x=x, more={"a": [a, b]})["sum"][0], eager_affine(x) + a)
        assert captures(run) == 2


def test_calls_with_other_arguments_by_name_or_none(device: str) -> None:
    class Optional(Program):
        def forward(self, *args: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
            x = constant if x is None else x
            for other in args:
                x = x + other
            return self.engine(x) * 2

    constant = torch.full((3, 7), 5.0, device=device)
    with enable_cudagraphs(Optional(device), whole_graph=True) as run:
        for _ in range(2):
            x, other = batch(device), batch(device)
            torch.testing.assert_close(run(x=x), eager_affine(x) * 2)
            torch.testing.assert_close(run(), eager_affine(constant) * 2)
            torch.testing.assert_close(run(other, x=x), eager_affine(x + other) * 2)
            torch.testing.assert_close(run(other), eager_affine(constant + other) * 2)
            torch.testing.assert_close(run(other, other), eager_affine(constant + other + other) * 2)
        assert run.stats() == {
            "calls": 10,
            "captures": 5,
            "replays": 5,
            "invalidated_captures": 0,
            "graphs": 5,
        }


def test_layouts_are_kept(device: str) -> None:
    def body(y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return y * 2 if z.is_contiguous() else y * 3

    x = batch(device)
    straight = torch.randn(4, 5, device=device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            torch.testing.assert_close(run(x, straight), eager_affine(x) * 2)
            torch.testing.assert_close(run(x, torch.randn(5, 4, device=device).t()), eager_affine(x) * 3)
            torch.testing.assert_close(run(x, straight[:, :3]), eager_affine(x) * 2)
        # The last is copied to contiguous memory, as PyTorch's empty_like gives it.
        assert captures(run) == 3


def test_dtypes(device: str) -> None:
    def body(y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return y + z

    x = batch(device)
    with enable_cudagraphs(Program(device, body), whole_graph=True) as run:
        for _ in range(2):
            for dtype in (torch.float32, torch.float64, torch.int32):
                z = torch.arange(7, device=device).to(dtype)
                torch.testing.assert_close(run(x, z), eager_affine(x) + z)
        assert captures(run) == 3


def test_autocast_is_part_of_it(device: str) -> None:
    weight = torch.randn(7, 7, device=device)
    x = batch(device)
    with enable_cudagraphs(Program(device, lambda y: y @ weight), whole_graph=True) as run:
        for _ in range(2):
            torch.testing.assert_close(run(x), eager_affine(x) @ weight)
            with torch.autocast(device, dtype=torch.bfloat16):
                for _ in range(2):
                    torch.testing.assert_close(run(x), eager_affine(x) @ weight)
                    assert run(x).dtype == torch.bfloat16
        assert captures(run) == 2


@pytest.mark.gpu
def test_values_on_the_cpu_are_baked_in() -> None:
    x = batch("cuda")
    with enable_cudagraphs(Program("cuda", lambda y, s: y * s.item()), whole_graph=True) as run:
        factor = torch.tensor(2.0)
        for value in (2.0, 3.0, 2.0):
            factor.fill_(value)
            torch.testing.assert_close(run(x, factor), eager_affine(x) * value)
        assert captures(run) == 2
        with pytest.raises(InputError, match="baked"):
            run(x, torch.zeros(1000))


@pytest.mark.gpu
def test_tensors_on_the_cpu_among_plain_ones() -> None:
    """Their values are baked in, so that calls with others do not share a graph."""
    program = Program("cuda", lambda y, factor: y * factor.item())
    with enable_cudagraphs(program, whole_graph=True) as run:
        for value in (2.0, 3.0, 2.0, 3.0):
            x = batch("cuda")
            torch.testing.assert_close(run(x, torch.tensor(value)), eager_affine(x) * value)
        assert captures(run) == 2


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        (torch.eye(3).to_sparse(), "dense"),
        (torch.nn.parameter.UninitializedParameter(), "dense"),
        (bytearray(b"x"), "bytearray"),
    ],
    ids=["sparse", "uninitialized", "bytearray"],
)
def test_arguments_that_cannot_be_compared(argument: Any, match: str) -> None:
    x = batch("cpu")
    with enable_cudagraphs(Program("cpu", lambda y, z: y), whole_graph=True) as run:
        with pytest.raises(InputError, match=match):
            run(x, argument)
        torch.testing.assert_close((run(x, 1), run(x, 1)), (eager_affine(x), eager_affine(x)))


def test_the_least_recently_used_graph_goes(device: str) -> None:
    inputs = [batch(device, size) for size in (1, 2, 3)]
    with enable_cudagraphs(Program(device), whole_graph=True, max_graphs=2) as run:
        for index in (0, 1, 0, 2, 0, 1):  # the last has gone for the first's sake
            torch.testing.assert_close(run(inputs[index]), eager_affine(inputs[index]) * 2)
        assert run.stats() == {
            "calls": 6,
            "captures": 4,
            "replays": 2,
            "invalidated_captures": 0,
            "graphs": 2,
        }
