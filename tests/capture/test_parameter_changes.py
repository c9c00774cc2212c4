"""A program that is run as one graph notices every change of a parameter or buffer but that of its values.

On a CPU results are right in any case, so the captures are counted: a change makes the graphs stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.capture.programs import served
from tests.reference import plans
from trt_rt import ExecutionError, TRTModule
from trt_rt.runtime import WholeGraph, enable_cudagraphs


class Weighted(torch.nn.Module):
    """An engine's result, multiplied by a square weight and with a buffer added."""

    weight: torch.nn.Parameter
    shift: torch.Tensor | None

    def __init__(self, device: str) -> None:
        super().__init__()
        self.engine = TRTModule(plans.affine(device=device), device=device)
        self.weight = torch.nn.Parameter(torch.randn(7, 7, device=device))
        self.register_buffer("shift", torch.randn(4, 7, device=device)[1])
        self.register_buffer("volume", torch.randn(2, 2, 2, 2, 2, 2, device=device))
        self.register_buffer("nothing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.engine(x) @ self.weight
        return y if self.shift is None else y + self.shift


def eager(program: Weighted, x: torch.Tensor) -> torch.Tensor:
    y = (torch.relu(x) * 2 + 1) @ program.weight
    return (y if program.shift is None else y + program.shift).detach()


def new_parameter(program: Weighted) -> None:
    program.weight = torch.nn.Parameter(torch.randn_like(program.weight))


def new_buffer(program: Weighted) -> None:
    program.shift = torch.randn(7, device=program.weight.device)


def no_buffer(program: Weighted) -> None:
    program.shift = None


def one_more(program: Weighted) -> None:
    program.register_buffer("more", torch.zeros(1))


def one_less(program: Weighted) -> None:
    del program.volume


def the_other_way_round(program: Weighted) -> None:
    """The same tensors under each other's names."""
    program._buffers["shift"], program._buffers["volume"] = None, program.shift
    program._buffers["nothing"] = program.volume


def new_data(program: Weighted) -> None:
    program.weight.data = torch.randn_like(program.weight)


def the_same_memory_transposed(program: Weighted) -> None:
    program.weight.data = program.weight.data.t()


def transposed_in_place(program: Weighted) -> None:
    program.volume.transpose_(2, 5)


def negated_in_place(program: Weighted) -> None:
    program.shift.data = torch._neg_view(program.shift.data)


def moved_in_the_storage(program: Weighted) -> None:
    assert program.shift is not None
    program.shift.set_(program.shift.untyped_storage(), 14, (7,), (1,))


def set_to_another(program: Weighted) -> None:
    assert program.shift is not None
    program.shift.set_(torch.randn(7, device=program.shift.device))


def new_memory_of_the_storage(program: Weighted) -> None:
    storage = program.weight.untyped_storage()
    storage.resize_(64 * storage.nbytes())
    program.weight.detach().normal_()


def swapped(program: Weighted) -> None:
    other = torch.nn.Parameter(torch.randn_like(program.weight))
    torch.utils.swap_tensors(program.weight, other)


def another_dtype_of_the_same_memory(program: Weighted) -> None:
    program.volume.data = program.volume.data.view(torch.int32)


def converted_and_back(program: Weighted) -> None:
    program.half().float()


CHANGES = [
    new_parameter,
    new_buffer,
    no_buffer,
    one_more,
    one_less,
    the_other_way_round,
    new_data,
    the_same_memory_transposed,
    transposed_in_place,
    negated_in_place,
    moved_in_the_storage,
    set_to_another,
    new_memory_of_the_storage,
    swapped,
    another_dtype_of_the_same_memory,
    converted_and_back,
]


class Graphed:
    """A program that is run as one graph, next to the same in eager PyTorch."""

    def __init__(self, program: Weighted, run: torch.nn.Module) -> None:
        self.program = program
        self.run = run

    def check(self, *, captures: int) -> None:
        """Three calls are right, and there were so many captures by then."""
        for _ in range(3):
            x = torch.randn(3, 7, device=self.program.weight.device)
            torch.testing.assert_close(self.run(x), eager(self.program, x))
        assert isinstance(self.run, WholeGraph)
        assert self.run.stats()["captures"] == captures


@pytest.fixture
def graphed(device: str) -> Iterator[Graphed]:
    program = Weighted(device)
    with enable_cudagraphs(program, whole_graph=True) as run:
        yield Graphed(program, run)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change(graphed: Graphed, change: Callable[[Weighted], None]) -> None:
    graphed.check(captures=1)
    change(graphed.program)
    graphed.check(captures=2)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_before_the_first_call(graphed: Graphed, change: Callable[[Weighted], None]) -> None:
    change(graphed.program)
    graphed.check(captures=1)


def other_values(program: Weighted) -> None:
    with torch.no_grad():
        for tensor in (program.weight, program.shift, program.volume):
            assert tensor is not None
            tensor.normal_()


def no_gradients(program: Weighted) -> None:
    program.requires_grad_(False)


def change_of_another_program(program: Weighted) -> None:
    other = Weighted(program.weight.device.type)
    new_parameter(other)
    one_less(other)


def put_back(program: Weighted) -> None:
    """A call finds the parameter that it had."""
    weight = program.weight
    new_parameter(program)
    program.weight = weight


@pytest.mark.parametrize("change", [other_values, no_gradients, change_of_another_program, put_back])
def test_what_leaves_the_graph_right(graphed: Graphed, change: Callable[[Weighted], None]) -> None:
    graphed.check(captures=1)
    change(graphed.program)
    graphed.check(captures=1)


@pytest.mark.parametrize("declared", ["argument", "attribute"])
def test_a_frozen_program_may_get_other_values(device: str, declared: str) -> None:
    program = Weighted(device)
    if declared == "attribute":
        program.is_frozen = True  # type: ignore[assignment]
    frozen = True if declared == "argument" else None
    x = torch.randn(3, 7, device=device)
    with enable_cudagraphs(program, whole_graph=True, frozen=frozen) as run:
        run(x)
        other_values(program)
        torch.testing.assert_close(served(run, x), eager(program, x))


def test_two_graphs_of_one_program(graphed: Graphed) -> None:
    """Both notice a change, also after one of them is gone."""
    program = graphed.program
    with enable_cudagraphs(program, whole_graph=True) as run:
        other = Graphed(program, run)
        for each in (graphed, other):
            each.check(captures=1)
        new_parameter(program)
        for each in (graphed, other):
            each.check(captures=2)
    del run, other, each
    new_parameter(program)
    graphed.check(captures=3)


def test_a_sparse_buffer_is_refused(graphed: Graphed) -> None:
    """Its values lie in tensors of its own, which operators replace."""
    program, device = graphed.program, graphed.program.weight.device
    program.volume = torch.eye(3, device=device).to_sparse()
    for _ in range(2):
        with pytest.raises(ExecutionError, match=r"'volume'.*sparse_coo.*to_dense"):
            graphed.run(torch.randn(3, 7, device=device))
    program.volume = program.volume.to_dense()
    graphed.check(captures=1)
