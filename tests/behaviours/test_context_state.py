"""What a context was told stays told, and is not told again."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.recording import recorded

# What a call with fresh outputs may tell TensorRT when only addresses are new. (Memory of an earlier call's
# tensors may be used again, and then an address is not new.)
_WITH_NEW_ADDRESSES = {"set_tensor_address", "execute_async_v3"}


@pytest.mark.behaviour(5)
def test_the_profile_follows_the_shapes(make):
    """Each call runs in a profile that admits its shapes, and a profile is selected only when it changes."""
    case = make("profiles")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    for n in (3, 30, 4, 2, 5, 32, 32, 1):
        inputs = case.example(n)
        case.assert_right(module(*inputs), case.expected(*inputs))
    selected = [arguments[0] for arguments in calls.arguments("set_optimization_profile_async")]
    assert selected == [1, 0, 1, 0]


@pytest.mark.behaviour(5)
def test_the_profile_survives_a_failure(make):
    """After a failed call in one profile, calls in that one and in the other are right."""
    case = make("profiles")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    for before, failing, after in ((3, 30, 30), (30, 3, 3), (3, 30, 3), (30, 30, 3), (3, 3, 30)):
        module(*case.example(before))
        with calls.failing("execute_async_v3"), pytest.raises(RuntimeError):
            module(*case.example(failing))
        for n in (after, before, after):
            inputs = case.example(n)
            case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(5)
def test_the_output_allocator_survives_a_failure(make):
    """After a failed call a data-dependent output is still allocated by PyTorch, and right."""
    case = make("nonzero")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    module(*case.example(3))
    with calls.failing("execute_async_v3"), pytest.raises(RuntimeError):
        module(*case.example(3))
    for n in (3, 8, 3):
        inputs = case.example(n)
        case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(7)
@pytest.mark.parametrize("kind", ["relu", "many", "shape_tensor", "profiles", "static", "no_inputs"])
def test_a_call_like_the_last_only_enqueues(make, kind):
    """With the same tensors and pre-allocated outputs, TensorRT is called once: to enqueue."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    module.set_pre_allocated_outputs(True)
    inputs = case.example(3)
    module(*inputs)
    calls.made.clear()
    for _ in range(5):
        case.assert_right(module(*inputs), case.expected(*inputs))
    assert calls.count() == {"execute_async_v3": 5}


@pytest.mark.behaviour(7)
@pytest.mark.parametrize("kind", ["relu", "two", "half", "shape_tensor", "scalar"])
def test_fresh_outputs_cost_an_address_each(make, kind):
    """With the same inputs and fresh outputs, TensorRT is told the outputs' addresses and nothing else."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)
    held = [module(*inputs)]
    calls.made.clear()
    held += [module(*inputs) for _ in range(5)]
    assert set(calls.count()) == _WITH_NEW_ADDRESSES
    assert {name for name, _ in calls.arguments("set_tensor_address")} == set(case.outputs)
    assert len(calls.arguments("set_tensor_address")) == 5 * len(case.outputs)
    assert len(held) == 6


@pytest.mark.behaviour(7)
@pytest.mark.parametrize("kind", ["relu", "two", "many"])
def test_alternating_shapes_are_derived_once(make, kind):
    """Going back and forth between shapes, TensorRT is told the shapes, and not asked again what follows."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    sizes = (1, 3, 32)
    for n in sizes:
        module(*case.example(n))
    calls.made.clear()
    for n in sizes * 4:
        inputs = case.example(n)
        case.assert_right(module(*inputs), case.expected(*inputs))
    count = calls.count()
    assert set(count) - _WITH_NEW_ADDRESSES == {"set_input_shape"}
    assert count["set_input_shape"] == 4 * len(sizes) * len(case.inputs)


@pytest.mark.behaviour(7)
def test_alternating_shapes_reuse_their_own_buffers(make):
    """Going back and forth between shapes, pre-allocated outputs of each shape are those of before."""
    case = make("two")
    module = case.module()
    module.set_pre_allocated_outputs(True)
    first = {n: [output.data_ptr() for output in module(*case.example(n))] for n in (1, 3, 32)}
    for n in (1, 3, 32) * 3:
        assert [output.data_ptr() for output in module(*case.example(n))] == first[n]


@pytest.mark.behaviour(7)
def test_alternating_shape_tensor_values_are_derived_once(make):
    """Going back and forth between a shape tensor's values, TensorRT is not asked again what follows."""
    case = make("shape_tensor")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    for n in (2, 7):
        module(*case.example(n))
    calls.made.clear()
    for n in (2, 7) * 4:
        inputs = case.example(n)
        case.assert_right(module(*inputs), case.expected(*inputs))
    assert set(calls.count()) <= _WITH_NEW_ADDRESSES


@pytest.mark.behaviour(7)
def test_profiles_alternate_without_more_calls(make):
    """Going back and forth between two profiles costs selecting one and setting the shape."""
    case = make("profiles")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    for n in (3, 30):
        module(*case.example(n))
    calls.made.clear()
    for n in (3, 30) * 3:
        module(*case.example(n))
    count = calls.count()
    assert set(count) - _WITH_NEW_ADDRESSES == {"set_optimization_profile_async", "set_input_shape"}
    assert count["set_optimization_profile_async"] == count["set_input_shape"] == 6


@pytest.mark.behaviour(7)
def test_a_bound_call_only_enqueues(make):
    """A bound call tells TensorRT nothing but to run, until another call has used the context."""
    case = make("two")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)
    bound = module.bind(*inputs)
    calls.made.clear()
    for _ in range(5):
        case.assert_right(bound(), case.expected(*inputs))
    assert calls.count() == {"execute_async_v3": 5}
    module(*case.example(5))
    calls.made.clear()
    case.assert_right(bound(), case.expected(*inputs))
    assert "infer_shapes" not in calls.count()
    calls.made.clear()
    bound()
    assert calls.count() == {"execute_async_v3": 1}


@pytest.mark.behaviour(7)
def test_new_values_in_the_same_tensors(make):
    """New values written into the tensors of the last call are seen, though TensorRT is told nothing."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    bound = module.bind(x)
    for _ in range(3):
        x.copy_(torch.randn_like(x))
        case.assert_right(module(x), case.expected(x))
        case.assert_right(bound(), case.expected(x))
