"""Calls of programs that are run as one graph, served without Python code."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from tests.capture.programs import Program, batch, captures, served
from tests.reference.plans import eager_affine
from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs


@pytest.mark.parametrize("buffers", [0, 1, 3])
@pytest.mark.parametrize("outputs", ["one", "tuple", "dict", "single", "none"])
def test_plain_calls_are_served_without_python(device: str, buffers: int, outputs: str) -> None:
    shapes = {
        "one": lambda y, z: y + z,
        "tuple": lambda y, z: (y + z, y - z),
        "dict": lambda y, z: {"sum": y + z, "other": [y - z, 3]},
        "single": lambda y, z: (y + z,),
        "none": lambda y, z: None,
    }
    program = Program(device, shapes[outputs])
    with (
        enable_pre_allocated_outputs(program, buffers=max(buffers, 1)) if buffers else nullcontext(),
        enable_cudagraphs(program, whole_graph=True) as run,
    ):
        run(batch(device), batch(device))
        held = []
        for _ in range(7):
            x, z = batch(device), batch(device)
            result = served(run, x, z)
            expected = shapes[outputs](eager_affine(x), z)
            torch.testing.assert_close(result, expected)
            held.append((result, expected))
            for earlier, was in held[-buffers:] if buffers else held:
                torch.testing.assert_close(earlier, was)
        assert captures(run) == 1


def test_several_kinds_of_plain_calls(device: str) -> None:
    with enable_cudagraphs(Program(device), whole_graph=True) as run:
        for size in (3, 5, 4):
            run(batch(device, size))
        for size in (5, 3, 4, 4, 3):
            x = batch(device, size)
            torch.testing.assert_close(served(run, x), eager_affine(x) * 2)
        assert captures(run) == 3


def test_dense_tensors_in_another_order_are_served_without_python(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: y + z), whole_graph=True) as run:
        for number in range(3):
            x, z = batch(device), torch.randn(7, 3, device=device).t()
            result = served(run, x, z) if number else run(x, z)
            torch.testing.assert_close(result, eager_affine(x) + z)
        assert captures(run) == 1


def test_many_plain_arguments(device: str) -> None:
    """More than one node of a graph copies at once."""
    with enable_cudagraphs(
        Program(device, lambda y, *rest: (y, *(z + 1 for z in rest))), whole_graph=True
    ) as run:
        for number in range(3):
            x, *rest = (batch(device) for _ in range(20))
            result = served(run, x, *rest) if number else run(x, *rest)
            torch.testing.assert_close(result, (eager_affine(x), *(z + 1 for z in rest)))


def test_static_and_other_arguments_in_turn(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: y + z), whole_graph=True) as run:
        run(batch(device), batch(device))
        x, z = run.graph_inputs
        for _ in range(2):
            for tensor in (x, z):
                tensor.normal_()
            torch.testing.assert_close(served(run, x, z), eager_affine(x) + z)
            other = batch(device)
            torch.testing.assert_close(served(run, other, z), eager_affine(other) + z)
            torch.testing.assert_close(served(run, x, z), eager_affine(other) + z)


def test_modes_that_change(device: str) -> None:
    program = Program(device)
    x = batch(device)
    with enable_cudagraphs(program, whole_graph=True) as run:
        run(x)
        first = served(run, x)
        with enable_pre_allocated_outputs(program):
            run(x)
            assert served(run, x) is served(run, x)
        torch.testing.assert_close(run(x), first)
        assert served(run, x) is not served(run, x)
