"""A call that fails leaves nothing behind."""

from __future__ import annotations

import contextlib

import pytest

import trt_rt
from tests.behaviours.modes import MODES, Caller
from tests.behaviours.recording import recorded

pytestmark = pytest.mark.behaviour(8)

_METHODS = ["set_input_shape", "infer_shapes", "set_tensor_address", "execute_async_v3"]


def _assert_calls_are_right(case, caller, sizes):
    """Returns the tensors of the calls: while they are held, another call's have other addresses."""
    held = []
    for n in sizes:
        inputs = case.example(n)
        expected = case.expected(*inputs)
        result = caller(inputs, expected)
        case.assert_right(result, expected)
        held.append((inputs, result))
    return held


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize("kind", ["relu", "two"])
def test_whatever_tensorrt_refuses_the_next_call_is_right(make, mode, method, kind):
    """When any of a call's steps is refused, the next call of these shapes is right, and of earlier ones."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    caller = Caller(case.module(backend), mode)
    held = _assert_calls_are_right(case, caller, (3, 2))
    inputs = case.example(4)
    expected = case.expected(*inputs)
    with calls.failing(method), pytest.raises(trt_rt.ExecutionError):
        caller(inputs, expected)
    del held
    case.assert_right(caller(inputs, expected), expected)
    _assert_calls_are_right(case, caller, (3, 4, 2, 4))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize("error", [RuntimeError("from TensorRT"), KeyboardInterrupt()])
def test_whatever_tensorrt_raises_the_next_call_is_right(make, mode, method, error):
    """The same when a step raises, were it by Ctrl-C."""
    case = make("two")
    backend, calls = recorded(case.backend)
    caller = Caller(case.module(backend), mode)
    held = _assert_calls_are_right(case, caller, (3,))
    inputs = case.example(4)
    expected = case.expected(*inputs)
    with calls.failing(method, error), pytest.raises((type(error), trt_rt.ExecutionError)):
        caller(inputs, expected)
    del held
    _assert_calls_are_right(case, caller, (4, 3, 4))


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_run_with_the_same_tensors(make, mode):
    """When a call with the last call's very tensors fails to run, the next one runs with them."""
    case = make("relu")
    backend, calls = recorded(case.backend)
    caller = Caller(case.module(backend), mode)
    inputs = case.example(3)
    expected = case.expected(*inputs)
    caller(inputs, expected)
    with calls.failing("execute_async_v3"), pytest.raises(trt_rt.ExecutionError):
        caller(inputs, expected)
    case.assert_right(caller(inputs, expected), expected)


def test_a_failed_bound_call(make):
    """A bound call that failed, or was made before another call failed, runs again."""
    case = make("two")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)
    bound = module.bind(*inputs)
    bound()
    with calls.failing("execute_async_v3"), pytest.raises(trt_rt.ExecutionError):
        bound()
    case.assert_right(bound(), case.expected(*inputs))
    for method in _METHODS:
        with calls.failing(method), pytest.raises(trt_rt.ExecutionError):
            module(*case.example(5 + _METHODS.index(method)))
        for tensor in bound.outputs:
            tensor.fill_(-1)
        case.assert_right(bound(), case.expected(*inputs))


def test_a_bound_call_that_cannot_bind_again(make):
    """A bound call that is refused an address when it binds again does so at the next call."""
    case = make("two")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    inputs = case.example(3)
    bound = module.bind(*inputs)
    for method in ("set_input_shape", "set_tensor_address"):
        module(*case.example(5))
        with calls.failing(method), pytest.raises(trt_rt.ExecutionError):
            bound()
        case.assert_right(bound(), case.expected(*inputs))


@pytest.mark.parametrize("mode", ["fresh", "pre_allocated", "bound"])
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("nonzero", "set_output_allocator"),
        ("nonzero", "execute_async_v3"),
        ("profiles", "set_optimization_profile_async"),
        ("shape_tensor", "infer_shapes"),
        ("shape_tensor", "execute_async_v3"),
    ],
)
def test_special_engines(make, mode, kind, method):
    """The same for allocators, profiles and shape tensors."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    caller = Caller(case.module(backend), mode)
    inputs = case.example(7)
    expected = case.expected(*inputs)
    with calls.failing(method), pytest.raises(trt_rt.ExecutionError):
        caller(inputs, expected)
    _assert_calls_are_right(case, caller, (7, 2, 7))


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_really_fails(make, mode):
    """When the engine itself fails on some values, other values are right afterwards."""
    case = make("fails_if_negative")
    caller = Caller(case.module(), mode)
    for n in (3, 3, 5):
        (x,) = case.example(n)
        expected = case.expected(x)
        case.assert_right(caller((x,), expected), expected)
        with pytest.raises(trt_rt.ExecutionError):
            caller((-x,), expected)
        case.assert_right(caller((x,), expected), expected)


@pytest.mark.parametrize("mode", MODES)
def test_refused_inputs(make, mode):
    """After a call refused for one of its inputs, calls of the old and of the new shape are right."""
    case = make("two")
    caller = Caller(case.module(), mode)
    _assert_calls_are_right(case, caller, (3,))
    for n in (3, 4):
        a, b = case.example(n)
        expected = case.expected(a, b)
        for refused in ((a, b.double()), (a, b[:, :2]), (a,), (a, b, b), (a, None), (a, b.new_zeros(99, 3))):
            with pytest.raises(trt_rt.InputError):
                caller(refused, expected)
            case.assert_right(caller((a, b), expected), expected)
    _assert_calls_are_right(case, caller, (3, 4))


def test_inputs_that_do_not_go_together(make):
    """Inputs that each fit, and do not fit together, are no error but one of ours; the next call is right."""
    case = make("two")
    module = case.module()
    a, b = case.example(3)
    for _ in range(2):
        with contextlib.suppress(trt_rt.TRTError):
            module(a, case.example(4)[1])
        case.assert_right(module(a, b), case.expected(a, b))
