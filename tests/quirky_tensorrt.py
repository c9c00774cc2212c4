"""The reference backend with habits that TensorRT 8.6.0 was seen to have.

A runtime has to be right for every TensorRT, and releases differ in details that the headers leave open. This
module reproduces such details on the CPU, one flag each, so that a test can ask for them::

    backend = quirky_backend(Quirk.ROUNDED_SIZES | Quirk.COPIED_SHAPE_VALUES)
    engine = Engine.from_bytes(plans.nonzero(), backend=backend, device="cpu")

Everything else stays as the reference backend does it, refusals included: where a real TensorRT would write
beyond a buffer, the reference backend logs an error and its enqueue returns False.
"""

from __future__ import annotations

import enum
import functools
import math
import traceback
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch

from trt_rt import reference
from trt_rt._core.dlpack import tensor_from_address
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.backend import Backend

__all__ = ["GRANULARITY", "Quirk", "quirky_backend"]

GRANULARITY = 512
"""Bytes to which TensorRT 8.6.0 rounds the sizes that it asks allocators for, and aligns scratch memory."""


class Quirk(enum.Flag):
    """A habit of TensorRT 8.6.0 that the reference backend does not have."""

    REMEMBERED_OUTPUT_SHAPES = enum.auto()
    """``context.get_tensor_shape`` of a data-dependent output returns the last run's shape once the context
    has run, where the reference backend returns -1 for what it cannot know. New input shapes change nothing.
    """
    COPIED_SHAPE_VALUES = enum.auto()
    """``set_tensor_address`` of a shape tensor copies its values. Values written to that memory later are
    not seen until the address is set again.
    """
    ROUNDED_SIZES = enum.auto()
    """Output allocators are asked for sizes rounded up to a multiple of 512 bytes; for 0 bytes for an empty
    output.
    """
    NO_FIRST_ENQUEUE_IN_CAPTURE = enum.auto()
    """The first enqueue of a context logs an error and returns False if its stream is being captured."""
    MISALIGNED_MEMORY_IGNORED = enum.auto()
    """``set_device_memory`` with an address that is no multiple of 512 silently keeps the old memory."""
    PROFILE_SWITCH_LOGGED = enum.auto()
    """Every profile switch logs a message of severity INFO."""

    ALL = (
        REMEMBERED_OUTPUT_SHAPES
        | COPIED_SHAPE_VALUES
        | ROUNDED_SIZES
        | NO_FIRST_ENQUEUE_IN_CAPTURE
        | MISALIGNED_MEMORY_IGNORED
        | PROFILE_SWITCH_LOGGED
    )


def _is_capturing(stream: int) -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def quirky_backend(
    quirks: Quirk = Quirk.ALL, *, is_capturing: Callable[[int], bool] = _is_capturing
) -> Backend:
    """Return a backend whose engines are those of ``trt_rt.reference``, with the habits in `quirks`.

    Parameters
    ----------
    quirks : Quirk
        Which habits.
    is_capturing : callable
        For ``NO_FIRST_ENQUEUE_IN_CAPTURE``: whether a stream, given by its handle, is being captured. A CPU
        has no captures, so a test on the CPU says itself when there is one.
    """

    class Runtime(reference.Runtime):
        def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
            engine = super().deserialize_cuda_engine(serialized_engine)
            return engine and _Engine(engine, quirks, is_capturing, self.logger)

    api = types.ModuleType("quirky_tensorrt")
    vars(api).update({name: getattr(reference, name) for name in reference.__all__})
    api.Runtime = Runtime  # type: ignore[attr-defined]
    api.__version__ = reference.__version__  # type: ignore[attr-defined]
    return Backend("quirky", api, runs_on_cpu=True)


class _Engine:
    """An engine that makes quirky contexts."""

    def __init__(
        self, engine: Any, quirks: Quirk, is_capturing: Callable[[int], bool], logger: reference.ILogger
    ) -> None:
        self._engine = engine
        self._quirks = quirks
        self._is_capturing = is_capturing
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property
    def weight_streaming_budget_v2(self) -> int:
        budget: int = self._engine.weight_streaming_budget_v2
        return budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, size: int) -> None:
        self._engine.weight_streaming_budget_v2 = size

    def create_execution_context(self, *args: Any, **kwargs: Any) -> Any:
        context = self._engine.create_execution_context(*args, **kwargs)
        return context and _Context(context, self)


def _without_frames(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keep contexts out of the tracebacks of what a method raises, as TensorRT has no Python frames."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            del args

    return call


class _Context:
    """An execution context with the habits of its engine."""

    def __init__(self, context: Any, engine: _Engine) -> None:
        self._context = context
        self._quirky_engine = engine
        self._quirks = engine._quirks
        self._has_run = False
        self._addresses: dict[str, int] = {}
        self._copies: dict[str, torch.Tensor] = {}
        self._allocators: dict[str, _Allocator] = {}
        self._last_shapes: dict[str, reference.Dims] = {}

    @_without_frames
    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    @_without_frames
    def __setattr__(self, name: str, value: Any) -> None:
        # Properties of the context, such as `profiler`, are set on the context.
        if not name.startswith("_") and hasattr(type(self._context), name):
            setattr(self._context, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def engine(self) -> _Engine:
        return self._quirky_engine

    @_without_frames
    def get_tensor_shape(self, name: str) -> Any:
        if Quirk.REMEMBERED_OUTPUT_SHAPES in self._quirks and name in self._last_shapes:
            return self._last_shapes[name]
        return self._context.get_tensor_shape(name)

    @_without_frames
    def set_tensor_address(self, name: str, memory: int) -> bool:
        engine = self._quirky_engine
        copied = (
            Quirk.COPIED_SHAPE_VALUES in self._quirks
            and engine.get_tensor_mode(name) is reference.TensorIOMode.INPUT
            and engine.get_tensor_location(name) is reference.TensorLocation.HOST
        )
        if not copied or not memory:
            accepted: bool = self._context.set_tensor_address(name, memory)
            return accepted
        dtype = {
            reference.DataType.INT32: torch.int32,
            reference.DataType.INT64: torch.int64,
        }[engine.get_tensor_dtype(name)]
        shape = tuple(engine.get_tensor_shape(name))
        copy = tensor_from_address(memory, shape, dtype, torch.device("cpu")).clone()
        accepted = self._context.set_tensor_address(name, copy.data_ptr())
        if accepted:
            self._copies[name], self._addresses[name] = copy, memory
        return accepted

    @_without_frames
    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name) or self._context.get_tensor_address(name)

    @_without_frames
    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        wrapped = None if output_allocator is None else _Allocator(output_allocator, self)
        accepted: bool = self._context.set_output_allocator(name, wrapped)
        if accepted:
            self._allocators.pop(name, None)
            if wrapped is not None:
                self._allocators[name] = wrapped
        return accepted

    @_without_frames
    def get_output_allocator(self, name: str) -> Any:
        wrapped = self._allocators.get(name)
        return None if wrapped is None else wrapped.wrapped

    @_without_frames
    def set_device_memory(self, memory: int, size: int) -> None:
        if Quirk.MISALIGNED_MEMORY_IGNORED in self._quirks and memory % GRANULARITY:
            return
        self._context.set_device_memory(memory, size)

    @_without_frames
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        accepted: bool = self._context.set_optimization_profile_async(profile_index, stream_handle)
        if accepted and Quirk.PROFILE_SWITCH_LOGGED in self._quirks:
            self._log(reference.ILogger.INFO, f"Switching optimization profile to {profile_index}")
        return accepted

    @_without_frames
    def execute_async_v3(self, stream_handle: int) -> bool:
        if (
            Quirk.NO_FIRST_ENQUEUE_IN_CAPTURE in self._quirks
            and not self._has_run
            and self._quirky_engine._is_capturing(stream_handle)
        ):
            self._log(
                reference.ILogger.ERROR,
                "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (operation not permitted when "
                "stream is capturing)",
            )
            return False
        succeeded: bool = self._context.execute_async_v3(stream_handle)
        self._has_run |= succeeded
        return succeeded

    def _log(self, severity: Any, message: str) -> None:
        self._quirky_engine._logger.log(severity, message)


class _Allocator(reference.IOutputAllocator):
    """Stands between a context and the user's allocator: rounds sizes, and remembers shapes."""

    def __init__(self, wrapped: Any, context: _Context) -> None:
        super().__init__()
        self.wrapped = wrapped
        # The context holds this allocator, and must go without the collector when its user drops it.
        self._context_reference = weakref.ref(context)

    @property
    def _context(self) -> _Context:
        context = self._context_reference()
        assert context is not None, "a context asked its allocator after its own end"
        return context

    def reallocate_output_async(
        self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
    ) -> int:
        if Quirk.ROUNDED_SIZES in self._context._quirks:
            # The reference backend asks for at least one byte, also for an empty output.
            is_empty = size < self._context._quirky_engine.get_tensor_bytes_per_component(tensor_name)
            size = 0 if is_empty else math.ceil(size / GRANULARITY) * GRANULARITY
        if hasattr(self.wrapped, "reallocate_output_async"):
            address = self.wrapped.reallocate_output_async(tensor_name, memory, size, alignment, stream)
        else:
            address = self.wrapped.reallocate_output(tensor_name, memory, size, alignment)
        # An empty output needs no memory, but the reference backend insists on an aligned address.
        return address or (GRANULARITY if size == 0 else 0)

    def notify_shape(self, tensor_name: str, shape: Any) -> None:
        if -1 in self._context._context.get_tensor_shape(tensor_name):
            self._context._last_shapes[tensor_name] = shape
        self.wrapped.notify_shape(tensor_name, shape)


# What TensorRT does in C++ is nothing that Dynamo could look into.
hide_from_dynamo(globals())
