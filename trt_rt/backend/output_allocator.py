"""Outputs that TensorRT allocates, because their size is known during the run only."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch

from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.errors import ExecutionError

__all__ = ["output_allocator_class"]


@cache
def output_allocator_class(api: ModuleType) -> type:
    """The output allocator over PyTorch's caching allocator, for one backend.

    Parameters
    ----------
    api : module
        A module that honours TensorRT's Python API.

    Returns
    -------
    type
        A subclass of ``api.IOutputAllocator``, made with ``(tensor: IOTensor, device: torch.device)``.
    """
    base: Any = api.IOutputAllocator

    class OutputAllocator(base):  # type: ignore[misc]
        """Gives TensorRT the memory of one output, and the caller the tensor.

        TensorRT asks for bytes. What it gets is exactly that, from PyTorch's caching allocator on the
        current stream, and becomes the tensor's storage: nothing is copied or cut to hand it over.
        """

        def __init__(self, tensor: IOTensor, device: torch.device) -> None:
            base.__init__(self)
            self._dtype = tensor.dtype
            self._device = device
            self._name = tensor.name
            self.start()

        def start(self) -> None:
            """Forget the last run."""
            self.error: BaseException | None = None
            self._buffer: torch.Tensor | None = None
            self._shape: tuple[int, ...] | None = None

        def take(self) -> torch.Tensor:
            """The output of the run that ended; the caller owns it from now on."""
            buffer, shape = self._buffer, self._shape
            self.start()
            if shape is None:
                raise ExecutionError(
                    f"TensorRT claims to have run, but gave no shape for output {self._name!r}."
                )
            with plain_pytorch():
                if 0 in shape:
                    return torch.empty(shape, dtype=self._dtype, device=self._device)
                if buffer is None:
                    raise ExecutionError(
                        f"TensorRT claims to have run, but asked for no memory for output {self._name!r} of "
                        f"shape {list(shape)}."
                    )
                tensor = torch.empty(0, dtype=self._dtype, device=self._device)
                return tensor.set_(  # type: ignore[call-overload, no-any-return]
                    buffer.untyped_storage(), 0, shape
                )

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            """TensorRT's request for `size` bytes; 0 refuses."""
            try:
                with plain_pytorch():
                    self._buffer = torch.empty(max(size, 1), dtype=torch.uint8, device=self._device)
            except BaseException as error:  # must not travel through TensorRT; the executor raises it
                self.error = error
                return 0
            return self._buffer.data_ptr()

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            """As `reallocate_output`. `stream` follows the caller's, for which PyTorch allocates."""
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            """TensorRT's word on the output's dimensions."""
            self._shape = tuple(shape)

    return OutputAllocator
