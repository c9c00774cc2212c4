"""A gate in a CUDA stream: work behind it starts when the test opens it, whatever the machine's speed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from cuda.bindings import driver

from tests.behaviours.garbage_collection import no_garbage_collection

__all__ = ["gate"]

_SECONDS_UNTIL_DEADLOCK = 20


class Gate:
    """What `gate` gives.

    Attributes
    ----------
    expired : bool
        Whether the gate opened by itself, because the test waited for work behind it.
    """

    def __init__(self, flag: torch.Tensor) -> None:
        self._flag = flag
        self.expired = False

    def open(self) -> None:
        """Let the work behind the gate start."""
        self._flag[0] = 1

    def expire(self) -> None:
        """Open it on behalf of a test that would wait for ever."""
        self.expired = True
        self.open()


@contextmanager
def gate(stream: torch.cuda.Stream) -> Iterator[Gate]:
    """Close a gate in `stream`; it is opened at the end at the latest.

    Parameters
    ----------
    stream : torch.cuda.Stream
        What is enqueued to it from now on waits.

    Notes
    -----
    Whatever is used for the first time behind a gate may wait for the device (memory, kernels), so a test
    runs the same work once before. The garbage collector is off: it could destroy another test's engine,
    which waits for that engine's work, and if its stream is this one, for the gate.
    """
    with no_garbage_collection():
        yield from _closed_gate(stream)


def _closed_gate(stream: torch.cuda.Stream) -> Iterator[Gate]:
    flag = torch.zeros(1, dtype=torch.int32).pin_memory()
    error, address = driver.cuMemHostGetDevicePointer(flag.data_ptr(), 0)
    assert error == driver.CUresult.CUDA_SUCCESS, error
    (error,) = driver.cuStreamWaitValue32(
        stream.cuda_stream, address, 1, driver.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ
    )
    assert error == driver.CUresult.CUDA_SUCCESS, error
    closed = Gate(flag)
    watchdog = threading.Timer(_SECONDS_UNTIL_DEADLOCK, closed.expire)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield closed
    finally:
        watchdog.cancel()
        closed.open()
        stream.synchronize()
