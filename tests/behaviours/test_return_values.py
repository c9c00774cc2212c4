"""Every answer of TensorRT is read, and no memory that was never written is returned."""

from __future__ import annotations

import copy
import logging

import pytest

import trt_rt
from tests.behaviours.recording import recorded

pytestmark = pytest.mark.behaviour(9)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("relu", "set_input_shape"),
        ("relu", "infer_shapes"),
        ("relu", "set_tensor_address"),
        ("relu", "execute_async_v3"),
        ("profiles", "set_optimization_profile_async"),
        ("nonzero", "set_output_allocator"),
        ("nonzero", "execute_async_v3"),
        ("shape_tensor", "set_tensor_address"),
        ("aliased", "set_tensor_address"),
        ("no_inputs", "execute_async_v3"),
        ("no_outputs", "execute_async_v3"),
    ],
)
def test_a_refusal_is_an_error_that_names_the_call(make, kind, method):
    """Whatever TensorRT refuses raises ExecutionError, which names the engine and the call."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    with calls.failing(method), pytest.raises(trt_rt.ExecutionError, match=method) as caught:
        module(*case.example(9))
    assert repr(kind) in str(caught.value)


def test_the_error_ends_with_tensorrts_words(make, caplog):
    """When enqueue returns False, the exception carries what TensorRT logged last, and the log has it too."""
    case = make("fails")
    module = case.module()
    with caplog.at_level(logging.ERROR, "trt_rt.tensorrt"), pytest.raises(trt_rt.ExecutionError) as caught:
        module(*case.example(3))
    assert "execute_async_v3" in str(caught.value)
    logged = [record.getMessage() for record in caplog.records if record.name == "trt_rt.tensorrt"]
    assert logged
    assert logged[-1] in str(caught.value)


def test_an_output_without_shape_is_not_returned(make):
    """When TensorRT claims to have run and gave a data-dependent output no shape, there is no result."""
    case = make("nonzero")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    module(*case.example(3))
    make_call = calls.make
    calls.make = lambda name, method, arguments: (
        True if name == "execute_async_v3" else make_call(name, method, arguments)
    )
    with pytest.raises(trt_rt.ExecutionError, match="'i'"):
        module(*case.example(3))
    calls.make = make_call
    inputs = case.example(3)
    case.assert_right(module(*inputs), case.expected(*inputs))


def test_no_context_is_an_error(make):
    """When TensorRT makes no execution context, there is no module."""
    case = make("relu")
    backend = copy.copy(case.backend)
    deserialize = backend.deserialize

    class WithoutContexts:
        def __init__(self, engine):
            self._engine = engine

        def __getattr__(self, name):
            return getattr(self._engine, name)

        def create_execution_context(self):
            return None

    backend.deserialize = lambda *arguments: WithoutContexts(deserialize(*arguments))
    with pytest.raises(trt_rt.BackendError, match="execution context"):
        case.module(backend)
