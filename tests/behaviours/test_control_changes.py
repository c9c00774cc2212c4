"""Controls survive a new context, and graphs do not survive a change of controls."""

from __future__ import annotations

import contextlib

import pytest

from tests.behaviours.recording import recorded
from trt_rt.runtime import (
    enable_cudagraphs,
    enable_output_allocator,
    enable_pre_allocated_outputs,
    enable_profiling,
    optimization_profile,
    use_dynamically_allocated_resources,
)

# Each makes the context anew at its beginning and its end.
_REBUILDS = [use_dynamically_allocated_resources, enable_profiling]
_every_rebuild = pytest.mark.parametrize("rebuild", _REBUILDS, ids=lambda control: control.__name__)


def _check(case, called, *batches):
    for n in batches:
        inputs = case.example(n)
        case.assert_right(called(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(5)
@_every_rebuild
def test_a_profile_survives_a_new_context(make, rebuild):
    """The chosen profile is selected in every new context, and the others stay refused."""
    case = make("profiles")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    with optimization_profile(module, 1) as called:
        for around in (contextlib.nullcontext, lambda: rebuild(module), contextlib.nullcontext):
            calls.made.clear()
            with around():
                _check(case, called, 8, 32)
                with pytest.raises(ValueError, match="optimization profile 1"):
                    called(*case.example(3))
                _check(case, called, 8)
            assert calls.arguments("set_optimization_profile_async")[0][0] == 1
            assert calls.count()["set_optimization_profile_async"] == 1
    _check(case, module, 3, 8)


@pytest.mark.behaviour(5)
@_every_rebuild
@pytest.mark.parametrize("kind", ["relu", "two", "nonzero"])
def test_an_allocator_survives_a_new_context(make, kind, rebuild):
    """Outputs that TensorRT allocates are allocated by PyTorch in every new context."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    with enable_output_allocator(module) as called:
        for around in (contextlib.nullcontext, lambda: rebuild(module), contextlib.nullcontext):
            calls.made.clear()
            with around():
                _check(case, called, 8, 12, 12, 8)
            told = calls.arguments("set_output_allocator")
            assert {name for name, allocator in told if allocator is not None} == set(case.outputs)


@pytest.mark.behaviour(5)
def test_a_profiler_survives_a_new_context(make):
    """Layers are timed in a context with other resources, and in the one after that."""
    case = make("relu")
    module = case.module()
    with enable_profiling(module) as profile:
        _check(case, profile, 8)
        with use_dynamically_allocated_resources(module):
            _check(case, profile, 8)
        _check(case, profile, 8)
    if not profile.layers:
        pytest.skip(f"the engines of the plan factory {case.factory.path} report no layers")
    assert {time.runs for time in profile.layers} == {3}


_CHANGES = {
    "profile": lambda module: optimization_profile(module, 0),
    "resources": use_dynamically_allocated_resources,
    "outputs": enable_pre_allocated_outputs,
}


@pytest.mark.behaviour(6)
@pytest.mark.parametrize("whole_graph", [False, True])
@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_graphs_do_not_survive_a_change(make, change, whole_graph):
    """Within another control, and after it, graphs are captured anew, and only once."""
    case = make("relu")
    module = case.module()
    with enable_cudagraphs(module, whole_graph=whole_graph) as called:
        inputs = case.example(8)

        def captures():
            before = called.stats()["captures"]
            for _ in range(3):
                case.assert_right(called(*inputs), case.expected(*inputs))
            return called.stats()["captures"] - before

        assert captures() == 1
        assert captures() == 0
        with change(module):
            assert captures() == 1
            assert captures() == 0
        assert captures() == 1


@pytest.mark.behaviour(6)
def test_only_for_the_modules_that_change(make):
    """Graphs of another module over the same engine stay."""
    case = make("relu")
    changed = case.module()
    other = type(changed)(changed.engine)
    inputs = case.example(8)
    with enable_cudagraphs(changed), enable_cudagraphs(other):
        for module in (changed, other):
            case.assert_right(module(*inputs), case.expected(*inputs))
        with use_dynamically_allocated_resources(changed):
            for module in (changed, other, changed, other):
                case.assert_right(module(*inputs), case.expected(*inputs))
    assert changed.stats()["captures"] == 2
    assert other.stats()["captures"] == 1
