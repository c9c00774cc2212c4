"""enable_output_allocator: what results own, and what is left of it."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.recording import recorded
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, InputError, TRTModule
from trt_rt.backend import load
from trt_rt.runtime import enable_cudagraphs, enable_output_allocator, enable_pre_allocated_outputs


def test_results_own_memory_of_their_size(module: TRTModule) -> None:
    held = []
    with enable_output_allocator(module) as called:
        for batch in (8, 12, 12, 8):
            x = torch.randn(batch, 7)
            held.append((called(x), eager_affine(x)))
    for result, expected in held:
        torch.testing.assert_close(result, expected)
        assert result.untyped_storage().nbytes() == result.nbytes
        assert result._base is None


def test_out_is_refused_within_and_taken_after(module: TRTModule) -> None:
    x, out = torch.randn(3, 7), torch.empty(3, 7)
    with enable_output_allocator(module) as called:
        with pytest.raises(InputError, match="out="):
            called(x, out=out)
        torch.testing.assert_close(called(x), eager_affine(x))
    assert module(x, out=out) is out
    torch.testing.assert_close(out, eager_affine(x))


def test_the_allocators_are_unset_on_exit() -> None:
    backend, calls = recorded(load("reference"))
    module = TRTModule(Engine.from_bytes(plans.two(), backend=backend, device="cpu"))
    inputs = torch.randn(3, 3), torch.randn(3, 3)
    with enable_output_allocator(module) as called:
        called(*inputs)
    told = calls.arguments("set_output_allocator")
    assert len(told) == 4
    assert all(allocator is not None for _, allocator in told[:2])
    assert {(name, allocator) for name, allocator in told[2:]} == {(name, None) for name, _ in told[:2]}


def test_it_wins_over_pre_allocated_outputs(module: TRTModule) -> None:
    """In either order results are the caller's; when it is left, pre-allocated outputs are back."""
    with enable_pre_allocated_outputs(module) as called:
        with enable_output_allocator(module):
            kept, other = called(torch.randn(3, 7)), called(torch.randn(3, 7))
            assert kept.data_ptr() != other.data_ptr()
            assert kept._base is None
        first = called(torch.randn(3, 7))
        assert called(torch.randn(3, 7)).data_ptr() == first.data_ptr()
    with enable_output_allocator(module) as called, enable_pre_allocated_outputs(module):
        results = [called(torch.full((3, 7), float(value))) for value in range(3)]
    assert [float(result[0, 0]) for result in results] == [1, 3, 5]


def test_it_is_refused_while_graphs_are_on(module: TRTModule) -> None:
    for whole_graph in (False, True):
        with enable_cudagraphs(module, whole_graph=whole_graph) as called:
            with pytest.raises(ValueError, match="enable_output_allocator cannot be entered"):
                enable_output_allocator(module).__enter__()
            x = torch.randn(3, 7)
            torch.testing.assert_close(called(x), eager_affine(x))
    with enable_output_allocator(module) as called:
        with pytest.raises(ValueError, match="enable_cudagraphs cannot be entered"):
            enable_cudagraphs(module).__enter__()
        torch.testing.assert_close(called(x), eager_affine(x))


def test_a_module_that_always_needs_it_keeps_it() -> None:
    module = TRTModule(plans.affine(), requires_output_allocator=True)
    with enable_output_allocator(module):
        pass
    assert module.executors.modes.output_allocator
