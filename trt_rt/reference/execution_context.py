"""``IExecutionContext``: runs an engine on memory that the caller provides."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.errors import ExecutionError, InputValueError
from trt_rt.reference.bindings import Bindings
from trt_rt.reference.callbacks import IOutputAllocator, IProfiler
from trt_rt.reference.configs import IRuntimeConfig
from trt_rt.reference.dims import NO_DIMS, Dims
from trt_rt.reference.enqueue import Enqueue
from trt_rt.reference.enums import ExecutionContextAllocationStrategy
from trt_rt.reference.layer_timing import LayerTimer, report
from trt_rt.reference.loaded_engine import LoadedEngine
from trt_rt.reference.plain_execution import plain
from trt_rt.reference.shape_inference import InferredShapes

__all__ = ["IExecutionContext"]


class IExecutionContext:
    """A context; :meth:`ICudaEngine.create_execution_context` makes it.

    One thread may use it at a time. A call that is refused logs an error and returns False.
    """

    def __init__(self, loaded: LoadedEngine, config: IRuntimeConfig, *, engine: object) -> None:
        self._loaded = loaded
        # Keeps the ICudaEngine alive. Its type cannot be named here: engine.py imports this file.
        self._engine: Any = engine
        self._config = config
        self._bindings = Bindings(loaded)
        self._enqueue = Enqueue(loaded, self._bindings)
        self._name = ""
        self._profiler: IProfiler | None = None
        self._enqueue_emits_profile = True
        self._last_timing: LayerTimer | None = None
        self._user_managed = (
            config.get_execution_context_allocation_strategy()
            is ExecutionContextAllocationStrategy.USER_MANAGED
        )
        self._user_memory = 0
        self._warned_of_default_stream = False
        self._calls: dict[object, None] = {}
        loaded.register_context(self)

    @property
    def engine(self) -> Any:
        """The :class:`ICudaEngine` that made the context."""
        return self._engine

    @property
    def name(self) -> str:
        """A name of the user's choice."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def get_runtime_config(self) -> IRuntimeConfig:
        """Return the options that the context was made with."""
        return self._config

    # Profiles and shapes

    @property
    def active_optimization_profile(self) -> int:
        """The optimization profile that input shapes must fit."""
        return self._bindings.profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Select an optimization profile; input shapes must be set again.

        Parameters
        ----------
        profile_index : int
            The profile.
        stream_handle : int
            A CUDA stream, on which the reference backend enqueues no work.
        """
        count = len(self._loaded.plan.profiles)
        if not 0 <= profile_index < count:
            return self._misuse(
                "setOptimizationProfileAsync", f"profile {profile_index} is not in [0, {count})"
            )
        self._bindings.select_profile(profile_index)
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """Set an input's shape.

        Parameters
        ----------
        name : str
            The input.
        shape : tuple or list of int, or Dims
            Within the active profile.

        Raises
        ------
        TypeError
            `shape` has another type.
        """
        if not isinstance(shape, (tuple, list)):
            raise TypeError(f"shape must be a tuple, a list or Dims, not {type(shape).__name__}")
        try:
            self._bindings.set_shape(name, tuple(operator.index(size) for size in shape))
        except InputValueError as error:
            return self._misuse("setInputShape", str(error))
        return True

    @property
    def all_binding_shapes_specified(self) -> bool:
        """Whether the shapes of all inputs are set."""
        return all(
            -1 not in self._bindings.input_shape(number) for number in range(len(self._loaded.plan.inputs))
        )

    def infer_shapes(self) -> list[str]:
        """Check that the shapes of all outputs can be inferred.

        Returns
        -------
        list of str
            Inputs that still need a shape, and shape tensors that still need an address.

        Raises
        ------
        RuntimeError
            The shapes or values that are set do not fit the network.
        """
        missing = self._bindings.missing()
        if not missing:
            try:
                self._inferred()
            except ExecutionError as error:
                self._misuse("inferShapes", str(error))
                raise RuntimeError(f"infer_shapes failed: {error}") from error
        return missing

    def get_tensor_shape(self, name: str) -> Dims:
        """Return a tensor's dimensions for the present input shapes; -1 for an unknown dimension."""
        number = self._loaded.input_numbers.get(name)
        if number is not None:
            return Dims(self._bindings.input_shape(number))
        number = self._loaded.output_numbers.get(name)
        if number is None:
            self._misuse("getTensorShape", f"{name!r} is not an I/O tensor of the engine")
            return NO_DIMS
        if not self._bindings.missing():
            try:
                return Dims(self._inferred().outputs[number])
            except ExecutionError as error:
                self._misuse("getTensorShape", str(error))
        return Dims(self._loaded.plan.outputs[number].shape)

    def get_tensor_strides(self, name: str) -> Dims:
        """Return a tensor's strides in elements; -1 for a stride that depends on an unknown dimension."""
        shape = self.get_tensor_shape(name)
        if shape is NO_DIMS:
            return NO_DIMS
        strides = [1] * len(shape)
        for axis in range(len(shape) - 2, -1, -1):
            inner = shape[axis + 1]
            strides[axis] = -1 if -1 in (inner, strides[axis + 1]) else strides[axis + 1] * inner
        return Dims(strides)

    def get_max_output_size(self, name: str) -> int:
        """Return the bytes of an output for the present input shapes.

        -1 while these are not set, and for an output whose shape depends on data: unlike TensorRT, the
        reference backend knows no bound for it.
        """
        number = self._loaded.output_numbers.get(name)
        if number is None:
            self._misuse("getMaxOutputSize", f"{name!r} is not an output")
            return -1
        size = self._loaded.plan.outputs[number].dtype.itemsize
        for dimension in self.get_tensor_shape(name):
            if dimension < 0:
                return -1
            size *= dimension
        return size

    # Memory

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Set the address of a tensor.

        Parameters
        ----------
        name : str
            An input or output.
        memory : int
            Address in the memory where the tensor must be: on CUDA aligned to 256 bytes, on the CPU to 64;
            for a shape tensor host memory, aligned to its elements. 0 only for a tensor without elements.
            The memory must stay until the run is over.
        """
        try:
            self._bindings.set_address(name, operator.index(memory))
        except InputValueError as error:
            return self._misuse("setTensorAddress", str(error))
        return True

    def get_tensor_address(self, name: str) -> int:
        """Return a tensor's address; 0 if none is set."""
        return self._bindings.addresses.get(name, 0)

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator | None) -> bool:
        """Set the allocator that provides an output's memory in every run; None removes it.

        Parameters
        ----------
        name : str
            An output.
        output_allocator : IOutputAllocator or None
            The context keeps it alive until another is set.
        """
        number = self._loaded.output_numbers.get(name)
        if number is None:
            return self._misuse("setOutputAllocator", f"{name!r} is not an output")
        aliased = self._loaded.plan.outputs[number].aliased_input
        if output_allocator is None:
            self._bindings.allocators.pop(name, None)
        elif aliased is not None:
            return self._misuse("setOutputAllocator", f"{name!r} lies in the memory of input {aliased!r}")
        else:
            self._bindings.allocators[name] = output_allocator
        return True

    def get_output_allocator(self, name: str) -> IOutputAllocator | None:
        """Return an output's allocator."""
        allocator: IOutputAllocator | None = self._bindings.allocators.get(name)
        return allocator

    def set_device_memory(self, memory: int, size: int) -> None:
        """Provide scratch memory. A context made with USER_MANAGED needs it; others ignore it.

        The reference backend checks the size and does not use the memory: PyTorch allocates its
        intermediate results.

        Parameters
        ----------
        memory : int
            Address on the device, aligned to 256 bytes (64 on the CPU).
        size : int
            Bytes.
        """
        if not self._user_managed:
            self._loaded.reporter.warn("IExecutionContext::setDeviceMemoryV2: ignored, not USER_MANAGED")
        elif memory % self._loaded.alignment or size < 0:
            self._misuse("setDeviceMemoryV2", f"{memory:#x} is not aligned to {self._loaded.alignment} bytes")
        else:
            self._user_memory = size if memory else 0

    def update_device_memory_size_for_shapes(self) -> int:
        """Return the bytes of scratch memory that the present input shapes need.

        0, and an error is logged, while these are not set.
        """
        try:
            return self._inferred().scratch_bytes + self._loaded.weights.scratch_size
        except ExecutionError as error:
            self._misuse("updateDeviceMemorySizeForShapes", str(error))
            return 0

    # Runs

    @plain
    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue a run.

        Parameters
        ----------
        stream_handle : int
            The CUDA stream; inputs are read and outputs written in its order. 0 on the CPU, where the run is
            over when this returns.

        Returns
        -------
        bool
            False, and an error is logged, if a shape or an address is missing or does not fit, or a layer
            fails.
        """
        # The first call in the dictionary has the context. Each call removes itself with a single C function,
        # before which no interrupt can come: nothing else could promise that an interrupt leaves nothing
        # behind. The second removal is for an interrupt in the first one.
        call = object()
        try:
            try:
                self._calls[call] = None
                calls = tuple(self._calls)
                if calls[0] is not call:
                    return self._misuse("enqueueV3", "the context is in use by another thread")
                return self._run(operator.index(stream_handle))
            finally:
                self._calls.pop(call, None)
        finally:
            self._calls.pop(call, None)

    def execute_v2(self, bindings: Sequence[int]) -> bool:
        """Run, and wait until it is over.

        Parameters
        ----------
        bindings : sequence of int
            Addresses of all I/O tensors, in the engine's order.
        """
        names = [*self._loaded.input_numbers, *self._loaded.output_numbers]
        if len(bindings) != len(names):
            return self._misuse("executeV2", f"{len(names)} addresses are needed, not {len(bindings)}")
        if not all(
            self.set_tensor_address(name, address) for name, address in zip(names, bindings, strict=True)
        ):
            return False
        succeeded = self.execute_async_v3(0)
        if self._loaded.device.type == "cuda":
            torch.cuda.default_stream(self._loaded.device).synchronize()
        return succeeded

    def is_stream_capturable(self, stream: int) -> bool:
        """Return whether a run can be captured in a CUDA graph on `stream` in the context's present state.

        A run that waits for the device cannot: for data-dependent shapes, streamed weights or a profiler.
        """
        loaded = self._loaded
        waits = loaded.program.waits_for_device or loaded.weights.is_streaming or self._profiler is not None
        return loaded.device.type == "cuda" and stream != 0 and not waits

    # Profiling

    @property
    def profiler(self) -> IProfiler | None:
        """Receives the time of every layer."""
        return self._profiler

    @profiler.setter
    def profiler(self, profiler: IProfiler | None) -> None:
        self._profiler = profiler
        self._last_timing = None

    @property
    def enqueue_emits_profile(self) -> bool:
        """Whether every run reports to the profiler, and waits until it is over to do so."""
        return self._enqueue_emits_profile

    @enqueue_emits_profile.setter
    def enqueue_emits_profile(self, emits: bool) -> None:
        self._enqueue_emits_profile = emits

    def report_to_profiler(self) -> bool:
        """Report the last run to the profiler; needed if :attr:`enqueue_emits_profile` is False."""
        if self._profiler is None or self._last_timing is None:
            return self._misuse("reportToProfiler", "there is no profiler, or nothing has run with it")
        report(self._last_timing, self._profiler)
        return True

    def _run(self, stream_handle: int) -> bool:
        on_cuda = self._loaded.device.type == "cuda"
        if on_cuda and stream_handle == 0 and not self._warned_of_default_stream:
            self._warned_of_default_stream = True
            self._loaded.reporter.warn(
                "Using default stream in enqueueV3() may lead to performance issues due to additional calls "
                "to cudaStreamSynchronize() by TensorRT to ensure correct synchronization. Please use "
                "non-default stream instead."
            )
        user_memory = self._user_memory if self._user_managed else None
        try:
            self._last_timing = self._enqueue.run(stream_handle, user_memory, self._profiler is not None)
        except ExecutionError as error:
            return self._failure("enqueueV3", str(error))
        except (RuntimeError, MemoryError, ValueError) as error:
            # PyTorch raises these for memory and streams: out of memory, an invalid handle.
            return self._failure("enqueueV3", f"{type(error).__name__}: {error}")
        if self._last_timing is not None and self._enqueue_emits_profile:
            self.report_to_profiler()
        return True

    @plain
    def _inferred(self) -> InferredShapes:
        return self._bindings.infer(self._bindings.shapes(), self._bindings.shape_tensors())

    def _misuse(self, call: str, reason: str) -> bool:
        self._loaded.reporter.misuse(f"IExecutionContext::{call}", reason)
        return False

    def _failure(self, call: str, reason: str) -> bool:
        self._loaded.reporter.failure(f"IExecutionContext::{call}", reason)
        return False


hide_from_dynamo(globals())
