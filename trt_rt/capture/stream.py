"""Streams on which programs are captured, and which nothing else uses.

PyTorch has a fixed set of streams and hands them out in turn. If a program were captured on one of them, a
caller could get the same stream as a ``torch.cuda.Stream``, and the caller's work would become part of the
graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from cuda.bindings import driver

from trt_rt._core.callbacks import HandBack
from trt_rt._core.critical import between
from trt_rt.errors import ExecutionError

__all__ = ["CaptureStream", "run_on"]

Result = TypeVar("Result")

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
        self._hand_back = HandBack(unused, handle)


def _new_stream(device: torch.device) -> int:
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # makes PyTorch's CUDA context current
        error, stream = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise ExecutionError(f"cuStreamCreate failed with {error.name}.")
    return int(stream)


def run_on(stream: torch.cuda.Stream, function: Callable[[], Result]) -> Result:
    """Call a function while a stream, and its device, are the current ones.

    Not ``with torch.cuda.stream(stream)``: an interrupt can cut short its ``__exit__``, which is written in
    Python, and the caller's work would go to a stream that is captured.

    Parameters
    ----------
    stream : torch.cuda.Stream
        The stream.
    function : callable
        Without arguments.

    Returns
    -------
    object
        What the function returns.
    """
    device = torch.cuda.current_device()
    current = torch.cuda.current_stream(stream.device)

    def restore() -> None:
        torch.cuda.set_stream(current)
        torch.cuda.set_device(device)

    return between(partial(torch.cuda.set_stream, stream), function, restore)
