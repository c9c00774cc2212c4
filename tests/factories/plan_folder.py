"""Plans in a folder, of which nothing is known but what the engine says of its I/O tensors.

Their outputs are compared with those of `PlainCalls`, which uses TensorRT's Python API and none of trt_rt's
calls.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

import trt_rt

__all__ = ["VARIABLE", "PlainCalls", "inputs_for", "plan_files"]

VARIABLE = "TRT_RT_PLANS"
"""Environment variable: a folder with files named ``*.plan``."""


def plan_files(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """The plans in `folder`, or in the one that `VARIABLE` names; none if it is not set.

    Raises
    ------
    ValueError
        If the folder has no plans, so that a wrong path does not pass for a folder that was tested.
    """
    named = folder or os.environ.get(VARIABLE)
    if not named:
        return []
    found = sorted(Path(named).glob("*.plan"))
    if not found:
        raise ValueError(f"{named!r} has no files named *.plan; {VARIABLE} must name a folder that has")
    return found


def inputs_for(engine: trt_rt.Engine, batch: int) -> tuple[torch.Tensor, ...] | None:
    """Random inputs of an engine, on its device; None if no profile admits the batch.

    Parameters
    ----------
    engine : Engine
        Whose.
    batch : int
        The first dimension of every input where that is dynamic. Other dynamic dimensions, and the values of
        shape tensors, are what a profile is optimized for. Integers are 0 and 1, which are valid indices of
        most networks.
    """
    for profile in range(engine.num_optimization_profiles):
        inputs = [_random(tensor, _sizes(tensor, profile, batch), engine.device) for tensor in engine.inputs]
        if all(tensor is not None for tensor in inputs):
            return tuple(tensor for tensor in inputs if tensor is not None)
    return None


def _sizes(tensor: trt_rt.IOTensor, profile: int, batch: int) -> tuple[int, ...] | torch.Tensor | None:
    """Dimensions, or the values of a shape tensor; None if the profile does not admit them."""
    if tensor.is_shape_tensor:
        return torch.tensor(tensor.profiles[profile].opt, dtype=tensor.dtype).reshape(tensor.shape)
    if not tensor.is_dynamic:
        return tensor.shape
    best = tensor.profiles[profile].opt
    sizes = tuple(
        size if size != -1 else batch if index == 0 else best[index]
        for index, size in enumerate(tensor.shape)
    )
    return sizes if tensor.profiles[profile].admits(sizes) else None


def _random(
    tensor: trt_rt.IOTensor, sizes: tuple[int, ...] | torch.Tensor | None, device: torch.device
) -> torch.Tensor | None:
    if sizes is None or isinstance(sizes, torch.Tensor):
        return sizes
    if tensor.dtype.is_floating_point:
        return torch.randn(sizes, device=device).to(tensor.dtype)
    return torch.randint(0, 2, sizes, device=device).to(tensor.dtype)


class PlainCalls:
    """An execution context called as TensorRT's samples do it: everything is told anew at every call.

    Parameters
    ----------
    api : module
        TensorRT's Python API.
    plan : bytes
        Deserialized here, so that nothing is shared with trt_rt.
    device : torch.device
        Where it runs.
    """

    def __init__(self, api: Any, plan: bytes, device: torch.device) -> None:
        self.device = device
        logger = api.Logger(api.Logger.ERROR) if hasattr(api, "Logger") else api.ILogger()
        self.runtime = api.Runtime(logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        assert self.engine is not None
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        is_input = {name: self.engine.get_tensor_mode(name) == api.TensorIOMode.INPUT for name in names}
        self.inputs = [name for name in names if is_input[name]]
        self.outputs = [name for name in names if not is_input[name]]
        self._allocated: set[str] = set()
        self._allocator_class = _allocator_class(api)

    @property
    def stream(self) -> int:
        """The caller's CUDA stream; 0 on a CPU."""
        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0

    def choose_profile(self, inputs: tuple[torch.Tensor, ...]) -> None:
        """Switch to the first profile that admits `inputs`."""
        for profile in range(self.engine.num_optimization_profiles):
            if self.context.active_optimization_profile != profile:
                assert self.context.set_optimization_profile_async(profile, self.stream)
            if all(self._admits(name, tensor) for name, tensor in zip(self.inputs, inputs, strict=True)):
                return

    def bind(self, inputs: tuple[torch.Tensor, ...], dtypes: tuple[torch.dtype, ...]) -> list[Any]:
        """Tell the context everything; returns what each output goes to, a tensor or an allocator."""
        context = self.context
        for name, tensor in zip(self.inputs, inputs, strict=True):
            assert context.set_input_shape(name, tuple(tensor.shape))
            assert context.set_tensor_address(name, tensor.data_ptr())
        targets: list[Any] = []
        for name, dtype in zip(self.outputs, dtypes, strict=True):
            shape = tuple(context.get_tensor_shape(name))
            if -1 in shape or name in self._allocated:
                self._allocated.add(name)  # TensorRT 8.6 says -1 before the first run only
                targets.append(self._allocator_class(dtype, self.device))
                assert context.set_output_allocator(name, targets[-1])
            else:
                targets.append(torch.empty(shape, dtype=dtype, device=self.device))
                assert context.set_tensor_address(name, targets[-1].data_ptr())
        return targets

    def _admits(self, name: str, tensor: torch.Tensor) -> bool:
        profile = self.context.active_optimization_profile
        if tensor.device.type != self.device.type or self.engine.is_shape_inference_io(name):
            return True
        low, _, high = self.engine.get_tensor_profile_shape(name, profile) or ((), (), ())
        sizes = tuple(tensor.shape)
        return all(a <= size <= b for a, size, b in zip(tuple(low), sizes, tuple(high), strict=False))

    def __call__(
        self, inputs: tuple[torch.Tensor, ...], dtypes: tuple[torch.dtype, ...]
    ) -> list[torch.Tensor]:
        """The outputs, in memory of their own."""
        self.choose_profile(inputs)
        targets = self.bind(inputs, dtypes)
        assert self.context.execute_async_v3(self.stream)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return [target if isinstance(target, torch.Tensor) else target.result() for target in targets]


def _allocator_class(api: Any) -> Any:
    class Allocator(api.IOutputAllocator):  # type: ignore[misc]
        def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
            api.IOutputAllocator.__init__(self)
            self.dtype, self.device = dtype, device

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            self.memory = torch.empty(max(size, 1), dtype=torch.uint8, device=self.device)
            return self.memory.data_ptr()

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, _stream: int
        ) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def result(self) -> torch.Tensor:
            count = torch.Size(self.shape).numel()
            return self.memory[: count * self.dtype.itemsize].view(self.dtype).reshape(self.shape)

    return Allocator
