"""The cheapest correct allocation of an uninitialised tensor that this PyTorch has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["empty_function"]

Empty = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], torch.Tensor]


def empty_function(device: torch.device) -> Empty:
    """A function ``empty(sizes, strides, dtype)`` that allocates on `device`.

    Parameters
    ----------
    device : torch.device
        ``cpu``, or ``cuda`` with an index.

    Returns
    -------
    callable
        On CUDA it allocates on the current device, from PyTorch's caching allocator, for the current
        stream: call it with the engine's device current.

    Notes
    -----
    TorchInductor's generated code allocates with ``torch._C._dynamo.guards._empty_strided_*``, which skip
    the dispatcher and give an ordinary tensor that the caching allocator owns, so ``record_stream``
    works on it. (It does nothing on one from DLPack's allocator: torch/csrc/Module.cpp wraps that
    memory in a deleter that the caching allocator does not know.) They are private, so where they are
    missing the public function does the same, slower.
    """
    guards: Any = getattr(torch._C._dynamo, "guards", None)
    fast: Empty | None = getattr(guards, f"_empty_strided_{device.type}", None)
    if fast is not None:
        return fast

    def empty(sizes: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(sizes, strides, dtype=dtype, device=device)

    return empty


hide_from_dynamo(globals())
