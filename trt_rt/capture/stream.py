"""Streams on which programs are captured, and that nobody else uses.

PyTorch hands out its streams in turn, so that a ``torch.cuda.Stream`` of a caller's can be the very one on
which a graph is being captured, and the caller's work would end up in the graph.
"""

from __future__ import annotations

import weakref
from collections import defaultdict

import torch
from cuda.bindings import driver

from trt_rt.errors import ExecutionError

__all__ = ["CaptureStream"]

# Streams are never destroyed: PyTorch keeps memory for the order of each. The next owner takes one over.
_unused: defaultdict[int, list[int]] = defaultdict(list)


class CaptureStream:
    """A stream for one owner at a time, given back when this is collected.

    Parameters
    ----------
    device : torch.device
        A GPU, with index.

    Attributes
    ----------
    stream : torch.cuda.ExternalStream
        The stream.

    Raises
    ------
    ExecutionError
        If CUDA gives none.
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
        torch.cuda.current_stream()  # PyTorch's context is current from here on
        error, stream = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise ExecutionError(f"cuStreamCreate failed with {error.name}.")
    return int(stream)
