"""What the tests of the reference backend share: a logger that remembers, and a context with its tensors."""

from __future__ import annotations

from typing import Any

import torch

from trt_rt import reference as trt

DTYPES = {
    trt.DataType.FLOAT: torch.float32,
    trt.DataType.HALF: torch.float16,
    trt.DataType.BF16: torch.bfloat16,
    trt.DataType.INT8: torch.int8,
    trt.DataType.UINT8: torch.uint8,
    trt.DataType.INT32: torch.int32,
    trt.DataType.INT64: torch.int64,
    trt.DataType.BOOL: torch.bool,
    trt.DataType.FP8: torch.float8_e4m3fn,
}


class RecordingLogger(trt.ILogger):
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.messages: list[tuple[Any, str]] = []

    def log(self, severity: Any, msg: str) -> None:
        self.messages.append((severity, msg))

    @property
    def errors(self) -> list[str]:
        return [message for severity, message in self.messages if severity <= trt.ILogger.ERROR]

    def take_error(self) -> str:
        """The only error since the last call."""
        (error,) = self.errors
        self.messages.clear()
        return error


class RecordingAllocator(trt.IOutputAllocator):
    """Gives each output a tensor of its own; remembers what it was asked."""

    def __init__(self, device: torch.device) -> None:
        trt.IOutputAllocator.__init__(self)
        self.device = device
        self.requests: list[tuple[str, int, int, int, int]] = []
        self.shapes: list[tuple[str, Any]] = []
        self.memory = torch.empty(0)

    def reallocate_output_async(
        self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
    ) -> int:
        self.requests.append((tensor_name, memory, size, alignment, stream))
        self.memory = torch.empty(size, dtype=torch.uint8, device=self.device)
        return self.memory.data_ptr()

    def notify_shape(self, tensor_name: str, shape: Any) -> None:
        self.shapes.append((tensor_name, shape))

    def tensor(self, dtype: torch.dtype) -> torch.Tensor:
        _, shape = self.shapes[-1]
        count = torch.Size(shape).numel()
        return self.memory[: count * dtype.itemsize].view(dtype).reshape(tuple(shape))


class Session:
    """An engine with one context and the tensors bound to it."""

    def __init__(self, plan: Any, device: str = "cpu", **context_options: Any) -> None:
        self.device = torch.device(device)
        self.logger = RecordingLogger()
        self.runtime = trt.Runtime(self.logger)
        engine = self.runtime.deserialize_cuda_engine(plan)
        assert engine is not None, self.logger.errors
        self.engine = engine
        self.names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.inputs = [name for name in self.names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in self.names if name not in self.inputs]
        self.context = engine.create_execution_context(**context_options)
        self.bound: dict[str, Any] = {}
        self.stream = torch.cuda.Stream() if device == "cuda" else None

    def dtype(self, name: str) -> torch.dtype:
        return DTYPES[self.engine.get_tensor_dtype(name)]

    def on_host(self, name: str) -> bool:
        return self.engine.get_tensor_location(name) == trt.TensorLocation.HOST

    def place(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A contiguous copy where the engine wants it; PyTorch's allocators align it."""
        device = torch.device("cpu") if self.on_host(name) else self.device
        return tensor.detach().to(device).clone(memory_format=torch.contiguous_format)

    def bind_inputs(self, *tensors: torch.Tensor) -> None:
        for name, tensor in zip(self.inputs, tensors, strict=True):
            placed = self.place(name, tensor)
            assert self.context.set_input_shape(name, tuple(placed.shape)), self.logger.errors
            assert self.context.set_tensor_address(name, placed.data_ptr()), self.logger.errors
            self.bound[name] = placed

    def bind_outputs(self) -> None:
        for name in self.outputs:
            aliased = self.engine.get_aliased_input_tensor(name)
            shape = self.context.get_tensor_shape(name)
            if aliased is not None:
                self.bound[name] = self.bound[aliased]
            elif -1 in shape:
                self.bound[name] = RecordingAllocator(self.device)
                assert self.context.set_output_allocator(name, self.bound[name])
                continue
            else:
                self.bound[name] = torch.empty(tuple(shape), dtype=self.dtype(name), device=self.device)
            assert self.context.set_tensor_address(name, self.bound[name].data_ptr()), self.logger.errors

    def enqueue(self) -> bool:
        if self.stream is None:
            return self.context.execute_async_v3(0)
        self.stream.wait_stream(torch.cuda.current_stream())
        succeeded = self.context.execute_async_v3(self.stream.cuda_stream)
        torch.cuda.current_stream().wait_stream(self.stream)
        return succeeded

    def result(self, name: str) -> torch.Tensor:
        bound = self.bound[name]
        return bound.tensor(self.dtype(name)) if isinstance(bound, RecordingAllocator) else bound

    def run(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.bind_inputs(*tensors)
        assert self.context.infer_shapes() == []
        self.bind_outputs()
        assert self.enqueue(), self.logger.errors
        return tuple(self.result(name) for name in self.outputs)
