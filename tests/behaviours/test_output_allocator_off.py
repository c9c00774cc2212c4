"""Once the output allocator is off, calls write ordinary outputs."""

from __future__ import annotations

import contextlib

import pytest

from tests.behaviours.modes import MODES, Caller
from tests.behaviours.recording import recorded
from trt_rt.runtime import enable_output_allocator

pytestmark = pytest.mark.behaviour(3)

_KINDS = ["relu", "two", "many", "shape_tensor"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", _KINDS)
def test_ordinary_outputs_afterwards(make, mode, kind):
    """However outputs are made, calls of the same and of other shapes are right before, within and after."""
    case = make(kind)
    module = case.module()
    call = Caller(module, mode)
    for _ in range(2):
        for n in (8, 2, 2, 8):
            inputs = case.example(n)
            expected = case.expected(*inputs)
            case.assert_right(call(inputs, expected), expected)
        with enable_output_allocator(module) as allocating:
            for n in (8, 5):
                inputs = case.example(n)
                case.assert_right(allocating(*inputs), case.expected(*inputs))


@pytest.mark.parametrize("leaves_by", ["end", "exception", "failure"])
@pytest.mark.parametrize("kind", _KINDS)
def test_no_allocator_is_asked_afterwards(make, kind, leaves_by):
    """Each allocator that was set on the context is unset, also if the last call within has failed."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)
    with contextlib.suppress(KeyError), enable_output_allocator(module) as allocating:
        case.assert_right(allocating(*inputs), case.expected(*inputs))
        if leaves_by == "failure":
            with calls.failing("execute_async_v3"), pytest.raises(RuntimeError):
                allocating(*inputs)
        elif leaves_by == "exception":
            raise KeyError
    last = dict(calls.arguments("set_output_allocator"))
    assert set(last) == set(case.outputs)
    assert set(last.values()) == {None}
    calls.made.clear()
    case.assert_right(module(*inputs), case.expected(*inputs))
    assert not calls.arguments("set_output_allocator")
    assert {name for name, _ in calls.arguments("set_tensor_address")} >= set(case.outputs)


def test_outputs_that_depend_on_data_keep_theirs(make):
    """An engine that cannot do without goes on as before."""
    case = make("nonzero")
    module = case.module()
    for _ in range(3):
        inputs = case.example(8)
        with enable_output_allocator(module) as allocating:
            case.assert_right(allocating(*inputs), case.expected(*inputs))
        case.assert_right(module(*inputs), case.expected(*inputs))
