"""Streams on which programs are captured, and which nothing else uses.

PyTorch has a fixed set of streams and hands them out in turn. If a program were captured on one of them, a
caller could get the same stream as a ``torch.cuda.Stream``, and the caller's work would become part of the
graph.
"""

from __future__ import annotations

import weakref
from collections import defaultdict

import torch
from cuda.bindings import driver

from trt_rt.errors import ExecutionError

__all__ = ["CaptureStream"]

# Streams by device. They are never destroyed, because PyTorch's allocator keeps memory for each stream. The
# next owner reuses one.
_unused: defaultdict[int, list[int]] = defaultdict(list)


class CaptureStream:
    """A stream that has one owner at a time. It becomes free when this object is collected.

    Parameters
    ----------
    device : torch.device
        A GPU, with its index.

    Attributes
    ----------
    stream : torch.cuda.ExternalStream
        The stream.

    Raises
    ------
    ExecutionError
        If CUDA creates no stream.
    """

    def __init__(self, device: torch.device) -> None:
        unused = _unused[device.index]
        try:
            handle = unused.pop()
        except IndexError:
            handle = _new_stream(device)
        self.stream = torch.cuda.ExternalStream(handle, device)
        weakref.finalize(self, unused.append, handle).atexit = False


def _new_stream(device: torch.device) -> int:
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # makes PyTorch's CUDA context current
        error, stream = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise ExecutionError(f"cuStreamCreate failed with {error.name}.")
    return int(stream)
