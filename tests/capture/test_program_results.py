"""Results of programs that are run as one graph, and what callers may do to them."""

from __future__ import annotations

import pytest
import torch

from tests.capture.programs import Program, batch
from tests.reference.plans import eager_affine
from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs


def test_results_that_are_the_programs_inputs(device: str) -> None:
    with enable_cudagraphs(Program(device, lambda y, z: (z, y, z)), whole_graph=True) as run:
        held = []
        for _ in range(4):
            x, z = batch(device), batch(device)
            held.append((run(x, z), (z.clone(), eager_affine(x), z.clone())))
        for result, expected in held:
            torch.testing.assert_close(result, expected)


def test_pre_allocated_results_are_views_and_can_be_switched_off(device: str) -> None:
    program = Program(device, lambda y: (y * 2, y.t()))
    program.engine.set_pre_allocated_outputs(True)
    with enable_cudagraphs(program, whole_graph=True) as run:
        inputs = [batch(device) for _ in range(8)]
        with pytest.raises(RuntimeError, match="resizable"):
            run(inputs[0])[0].untyped_storage().resize_(0)
        program.engine.set_pre_allocated_outputs(False)
        kept = [(run(x), eager_affine(x) * 2) for x in inputs]
        for (result, _), expected in kept:
            torch.testing.assert_close(result, expected)
        other = batch(device, 5)
        torch.testing.assert_close(run(other)[0], eager_affine(other) * 2)


def test_pre_allocated_results_that_are_altered(device: str) -> None:
    program = Program(device)
    x = batch(device)
    with enable_pre_allocated_outputs(program), enable_cudagraphs(program, whole_graph=True) as run:
        first = run(x)
        assert run(x) is first
        for alter in (
            lambda y: y.unsqueeze_(0),
            lambda y: y.t_(),
            lambda y: y.requires_grad_(),
            lambda y: setattr(y, "data", torch.zeros(2, device=device)),
        ):
            alter(run(x))
            result = run(x)
            torch.testing.assert_close(result, eager_affine(x) * 2)
            assert not result.requires_grad
