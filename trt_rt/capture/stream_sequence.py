"""Keeps calls that share memory in one order, whichever streams they come from."""

from __future__ import annotations

import torch

from trt_rt._core.driver import current_stream_handle

__all__ = ["StreamSequence"]


class StreamSequence:
    """Orders the GPU work of each call after that of the call before.

    Nothing is done while calls come from one stream.

    Parameters
    ----------
    device : torch.device
        Where the calls run; on a CPU they are over when they return.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: torch.cuda.Stream | None = None
        self._handle: int | None = None  # of it: asking for a number is cheaper than for a stream
        self._is_external = False
        # Of the last call, if its stream is not PyTorch's: its owner may destroy it, and then it must not be
        # touched any more.
        self._event: torch.cuda.Event | None = None

    def begin(self) -> None:
        """Make the current stream wait for the last call's work, if that went to another stream."""
        if self._device.type != "cuda":
            return
        handle = current_stream_handle(self._device.index)
        if handle == self._handle:
            return
        current = torch.cuda.current_stream(self._device)
        if self._event is not None:
            current.wait_event(self._event)
        elif self._last is not None:
            current.wait_stream(self._last)
        self._last, self._handle = current, handle
        # PyTorch gives a stream that it did not make the stream's own handle for an id.
        self._is_external = current.stream_id == handle != 0

    def end(self) -> None:
        """Note that the call which began last has enqueued all of its work."""
        if self._is_external and self._last is not None:
            self._event = self._last.record_event()
        else:
            self._event = None

    def wait(self) -> None:
        """Block until the last call's work is done."""
        if self._event is not None:
            self._event.synchronize()
        elif self._last is not None:
            self._last.synchronize()
