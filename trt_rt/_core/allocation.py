"""The cheapest correct allocation of an uninitialised tensor that this PyTorch has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["empty_function"]

Empty = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], torch.Tensor]


def empty_function(device: torch.device) -> Empty:
    """Return a function ``empty(sizes, strides, dtype)`` that allocates on `device`.

    Parameters
    ----------
    device : torch.device
        ``cpu``, or ``cuda`` with an index.

    Returns
    -------
    callable
        On CUDA it allocates on the current device, from PyTorch's caching allocator, for the current stream.
        So the engine's device must be current when it is called.

    Notes
    -----
    TorchInductor's generated code allocates with ``torch._C._dynamo.guards._empty_strided_*``. These bypass
    the dispatcher and return an ordinary tensor of the caching allocator, so ``record_stream`` works on it.
    It does nothing on a tensor from DLPack's allocator, because torch/csrc/Module.cpp wraps that memory in a
    deleter that the caching allocator does not know. The functions are private. If they are missing, the
    slower public function does the same.
    """
    guards: Any = getattr(torch._C._dynamo, "guards", None)
    fast: Empty | None = getattr(guards, f"_empty_strided_{device.type}", None)
    if fast is not None:
        return fast

    def empty(sizes: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(sizes, strides, dtype=dtype, device=device)

    return empty


hide_from_dynamo(globals())
