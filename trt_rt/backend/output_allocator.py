"""Outputs that TensorRT allocates because their size is known only during the run."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch

from trt_rt._core.callbacks import callback
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.errors import ExecutionError

__all__ = ["output_allocator_class"]


@cache
def output_allocator_class(api: ModuleType) -> type:
    """Return one backend's class of output allocators over PyTorch's caching allocator.

    Parameters
    ----------
    api : module
        A module with TensorRT's Python API.

    Returns
    -------
    type
        A subclass of ``api.IOutputAllocator``, made with ``(tensor: IOTensor, device: torch.device)``.
    """
    base: Any = api.IOutputAllocator

    class OutputAllocator(base):  # type: ignore[misc]
        """Memory for one output, which becomes the tensor that the caller gets.

        TensorRT asks for a number of bytes. It gets exactly these from PyTorch's caching allocator, on the
        current stream. They become the tensor's storage, so nothing is copied or cut off.

        Attributes
        ----------
        error : BaseException or None
            Raised by a method that TensorRT has called in the last run.
        """

        def __init__(self, tensor: IOTensor, device: torch.device) -> None:
            base.__init__(self)
            self._dtype = tensor.dtype
            self._device = device
            self._name = tensor.name
            self.start()

        def start(self) -> None:
            """Forget the last run, before a new one."""
            self.error: BaseException | None = None
            self._buffer: torch.Tensor | None = None
            self._shape: tuple[int, ...] | None = None

        def take(self) -> torch.Tensor:
            """Return the output of the last run, and leave it to the caller; raise `error`, if any."""
            buffer, shape, error = self._buffer, self._shape, self.error
            self.start()
            if error is not None:
                raise error
            if shape is None:
                raise ExecutionError(
                    f"TensorRT reports a successful run, but gave no shape for output {self._name!r}."
                )
            with plain_pytorch():
                if 0 in shape:
                    return torch.empty(shape, dtype=self._dtype, device=self._device)
                if buffer is None:
                    raise ExecutionError(
                        "TensorRT reports a successful run, but asked for no memory for output "
                        f"{self._name!r} of shape {list(shape)}."
                    )
                tensor = torch.empty(0, dtype=self._dtype, device=self._device)
                return tensor.set_(  # type: ignore[call-overload, no-any-return]
                    buffer.untyped_storage(), 0, shape
                )

        @callback(refusal=0, keeps_error=True)
        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            """Return the address of `size` bytes, which TensorRT asks for; 0 after an error."""
            with plain_pytorch():
                self._buffer = torch.empty(max(size, 1), dtype=torch.uint8, device=self._device)
            return self._buffer.data_ptr()

        @callback(refusal=0, keeps_error=True)
        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            """Do the same as `reallocate_output`. `stream` runs after the caller's stream, PyTorch's."""
            return self.reallocate_output(tensor_name, memory, size, alignment)

        @callback(keeps_error=True)
        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            """Take the output's dimensions, which TensorRT reports."""
            self._shape = tuple(shape)

    hide_from_dynamo(OutputAllocator)
    return OutputAllocator
