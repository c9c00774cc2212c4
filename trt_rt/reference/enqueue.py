"""One run of an engine: from addresses, through the network, to addresses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from trt_rt._core.capture_memory import CaptureMemory
from trt_rt._core.dlpack import tensor_from_address
from trt_rt.errors import ExecutionError
from trt_rt.reference.allocator_calls import notify_shape, reallocate
from trt_rt.reference.bindings import Bindings
from trt_rt.reference.interpreter import execute
from trt_rt.reference.io_tensors import OutputTensor
from trt_rt.reference.layer_timing import CpuTimer, CudaTimer, LayerTimer
from trt_rt.reference.loaded_engine import LoadedEngine
from trt_rt.reference.plain_execution import inference

__all__ = ["Enqueue"]


class Enqueue:
    """Runs an engine on the bindings of a context.

    Parameters
    ----------
    engine : LoadedEngine
        The engine.
    bindings : Bindings
        The context's bindings.
    """

    def __init__(self, engine: LoadedEngine, bindings: Bindings) -> None:
        self._engine = engine
        self._bindings = bindings
        self._on_cuda = engine.device.type == "cuda"
        self._capture_memory = CaptureMemory(engine.device)

    def run(self, stream_handle: int, user_memory: int | None, timed: bool) -> LayerTimer | None:
        """Run the network in stream order.

        Parameters
        ----------
        stream_handle : int
            The CUDA stream; 0 on the CPU, where the run is over when this returns.
        user_memory : int or None
            Bytes of scratch memory that the user has provided; None if the context provides its own.
        timed : bool
            Whether to measure the layers.

        Returns
        -------
        LayerTimer or None
            The measurement, if `timed`.

        Raises
        ------
        ExecutionError
            A shape or an address is missing or does not fit, or a layer failed.
        """
        bindings = self._bindings
        shapes = bindings.shapes()
        shape_tensors = bindings.shape_tensors()
        inferred = bindings.infer(shapes, shape_tensors)
        bindings.check_memory(shapes, inferred)
        self._check_user_memory(user_memory, inferred.scratch_bytes)
        with self._on_stream(stream_handle):
            self._check_capture(timed)
            inputs = [
                shape_tensors[number]
                if number in shape_tensors
                else tensor_from_address(
                    bindings.addresses.get(tensor.name, 0), shape, tensor.dtype, self._engine.device
                )
                for number, (tensor, shape) in enumerate(zip(self._engine.plan.inputs, shapes, strict=True))
            ]
            timer = self._timer() if timed else None
            outputs = self._compute(inputs, timer, inferred.unknown)
            for tensor, expected, value in zip(
                self._engine.plan.outputs, inferred.outputs, outputs, strict=True
            ):
                _check_output(tensor, expected, value)
            for tensor, value in zip(self._engine.plan.outputs, outputs, strict=True):
                self._write(tensor, value, stream_handle)
            if self._engine.weights.is_streaming and self._on_cuda:
                torch.cuda.current_stream().synchronize()
        return timer

    def _check_user_memory(self, user_memory: int | None, activations: int) -> None:
        needed = activations + self._engine.weights.scratch_size
        if user_memory is not None and user_memory < needed:
            raise ExecutionError(
                f"device memory is managed by the user: {needed} bytes are needed and {user_memory} were "
                "given to set_device_memory"
            )

    @contextmanager
    def _on_stream(self, handle: int) -> Iterator[None]:
        device = self._engine.device
        if not self._on_cuda:
            if handle:
                raise ExecutionError(
                    f"an engine on the CPU has no streams: the handle must be 0, not {handle:#x}"
                )
            yield
            return
        if torch.cuda.current_device() != device.index:
            # CUDA gives this reason for a launch on a stream of another device than the current one.
            raise ExecutionError(
                f"cuda:{torch.cuda.current_device()} is current, and the engine and its streams are on "
                f"{device}: invalid resource handle"
            )
        stream = torch.cuda.default_stream(device)
        if handle:
            stream = torch.cuda.ExternalStream(handle, device)
        with torch.cuda.device(device), torch.cuda.stream(stream):
            yield

    def _check_capture(self, timed: bool) -> None:
        if not self._on_cuda or not torch.cuda.is_current_stream_capturing():
            return
        if self._engine.weights.is_streaming:
            raise ExecutionError("weights are being streamed: the stream must not be capturing")
        if self._engine.program.waits_for_device:
            raise ExecutionError("the network has data-dependent shapes: the stream must not be capturing")
        if timed:
            raise ExecutionError("layers are being profiled: the stream must not be capturing")

    def _timer(self) -> LayerTimer:
        return CudaTimer() if self._on_cuda else CpuTimer()

    @inference
    def _compute(
        self, inputs: list[torch.Tensor], timer: LayerTimer | None, unknown: frozenset[int]
    ) -> list[torch.Tensor]:
        return self._capture_memory.allocating(partial(self._compute_all, inputs, timer, unknown))

    def _compute_all(
        self, inputs: list[torch.Tensor], timer: LayerTimer | None, unknown: frozenset[int]
    ) -> list[torch.Tensor]:
        engine = self._engine
        outputs = execute(engine.program, inputs, engine.weights, engine.device, timer, unknown)
        if not engine.has_aliases:
            return outputs
        # An aliased output overwrites its input, and another output may be a view of that input.
        memory = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        return [value.clone() if value.untyped_storage().data_ptr() in memory else value for value in outputs]

    def _write(self, tensor: OutputTensor, value: torch.Tensor, stream: int) -> None:
        allocator = self._bindings.allocators.get(tensor.name)
        shape = tuple(value.shape)
        address = self._bindings.addresses.get(tensor.name, 0)
        if allocator is not None:
            # NvInferRuntime.h of IOutputAllocator: "Always positive, even for an empty tensor."
            size = max(math.prod(shape) * tensor.dtype.itemsize, 1)
            address = reallocate(allocator, tensor.name, address, size, self._engine.alignment, stream)
        # The target is made here, outside inference mode, and dropped here: no inference tensor escapes.
        target = tensor_from_address(address, shape, tensor.dtype, self._engine.device)
        _copy(target, value)
        if allocator is not None:
            notify_shape(allocator, tensor.name, shape)


@inference
def _copy(target: torch.Tensor, value: torch.Tensor) -> None:
    target.copy_(value, non_blocking=True)


def _check_output(tensor: OutputTensor, expected: tuple[int, ...], value: torch.Tensor) -> None:
    """Refuse an output that is larger than its memory, or of another type."""
    shape = tuple(value.shape)
    fits = len(shape) == len(expected) and all(
        known in (-1, size) for known, size in zip(expected, shape, strict=True)
    )
    if not fits or value.dtype != tensor.dtype:
        raise ExecutionError(
            f"output {tensor.name!r} came out as {value.dtype}{list(shape)}, "
            f"not {tensor.dtype}{list(expected)}"
        )
