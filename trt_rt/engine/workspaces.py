"""Scratch memory that the execution contexts of one stream share."""

from __future__ import annotations

import threading
import weakref
from functools import partial

import torch

from trt_rt._core.autograd_modes import in_inference_mode
from trt_rt._core.critical import Gate
from trt_rt._core.plain_pytorch import plain_pytorch

__all__ = ["ALIGNMENT", "shared_workspace"]

ALIGNMENT = 512
"""Bytes. TensorRT 8.6 silently keeps a context's old memory if the new address is not a multiple of this."""

_gate = Gate()
# Not a WeakValueDictionary: an interrupt in its callbacks, which are written in Python, would be lost.
_of_stream: dict[tuple[torch.device, int], weakref.ref[torch.Tensor]] = {}


def shared_workspace(device: torch.device, stream: int, size: int) -> torch.Tensor:
    """Return scratch memory for work in the order of one stream.

    Work on one stream runs in order, so all contexts of a stream can share scratch memory. On a CPU, the
    contexts of one thread share it.

    Parameters
    ----------
    device : torch.device
        The device of the memory.
    stream : int
        The caller's CUDA stream, which must be current; 0 on a CPU.
    size : int
        The number of bytes that are needed.

    Returns
    -------
    torch.Tensor
        At least `size` bytes, uint8, starting at a multiple of `ALIGNMENT`. It is freed when nothing refers
        to it. Contexts that have a smaller tensor keep that one.

    Raises
    ------
    torch.OutOfMemoryError, MemoryError
        If there is no memory, on a GPU or a CPU.
    """
    key = (device, stream if device.type == "cuda" else threading.get_ident())
    return _gate.run(_workspace, key, device, size)


def _workspace(key: tuple[torch.device, int], device: torch.device, size: int) -> torch.Tensor:
    known = _of_stream.get(key)
    workspace = None if known is None else known()
    if workspace is None or workspace.numel() < size:
        workspace = _new_workspace(device, max(size, 1))
        for unused in [key for key, reference in _of_stream.items() if reference() is None]:
            del _of_stream[unused]
        _of_stream[key] = weakref.ref(workspace)
    return workspace


def _new_workspace(device: torch.device, size: int) -> torch.Tensor:
    try:
        return in_inference_mode(False, partial(_aligned_bytes, device, size))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # from PyTorch on a CPU, and for sizes that no machine has
        raise MemoryError(f"no memory for {size} bytes of scratch memory on {device}: {error}") from None


def _aligned_bytes(device: torch.device, size: int) -> torch.Tensor:
    with plain_pytorch():
        memory = torch.empty(size, dtype=torch.uint8, device=device)
        if memory.data_ptr() % ALIGNMENT == 0:  # always true for PyTorch's own CUDA allocator
            return memory
        del memory
        memory = torch.empty(size + ALIGNMENT - 1, dtype=torch.uint8, device=device)
        return memory.narrow(0, -memory.data_ptr() % ALIGNMENT, size)
