"""A call that fails within weight_streaming does not keep the budget from coming back."""

from __future__ import annotations

import pytest

import trt_rt
from tests.behaviours.recording import recorded
from trt_rt.runtime import weight_streaming

METHODS = ("execute_async_v3", "infer_shapes", "set_input_shape", "set_tensor_address")


class Stop(BaseException):
    """As KeyboardInterrupt is: not an Exception."""


@pytest.mark.parametrize("calls_before", [0, 1])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "error", [None, RuntimeError("inside"), Stop("inside")], ids=["refused", "error", "stop"]
)
def test_the_error_comes_out_and_the_budget_is_back(make, method, error, calls_before):
    """Whatever a context raises, the caller sees that error and finds the budget as it was."""
    case = make("streaming")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    (x,) = case.example(2)
    before = module.engine.weight_streaming_budget
    expected = (trt_rt.ExecutionError, RuntimeError) if not isinstance(error, Stop) else Stop

    def fail() -> None:
        with weight_streaming(module) as streaming:
            for _ in range(calls_before):
                module(x)
            streaming.device_budget = streaming.total_device_budget // 2
            with calls.failing(method, error):
                streaming(x)

    with pytest.raises(expected) as raised:
        fail()
    if error is not None:
        assert "inside" in str(raised.value)
    assert module.engine.weight_streaming_budget == before
    case.assert_right(module(x), case.expected(x))


def test_an_error_that_is_kept_does_not_keep_a_context(make):
    """The budget can be changed while a caller still holds the error of a failed call."""
    case = make("streaming")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    (x,) = case.example(2)
    with weight_streaming(module) as streaming:
        with calls.failing("execute_async_v3", RuntimeError("inside")), pytest.raises(RuntimeError) as kept:
            streaming(x)
        streaming.device_budget = streaming.total_device_budget // 2
        case.assert_right(streaming(x), case.expected(x))
    assert "inside" in str(kept.value)
