"""Keeps calls that share memory in one order, whichever streams they come from."""

from __future__ import annotations

import torch

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
        # Of the last call, if its stream is not PyTorch's: its owner may destroy it, and then it must not be
        # touched any more.
        self._event: torch.cuda.Event | None = None

    def begin(self) -> None:
        """Make the current stream wait for the last call's work, if that went to another stream."""
        if self._device.type != "cuda":
            return
        current = torch.cuda.current_stream(self._device)
        if self._last is not None and self._last != current:
            if self._event is not None:
                current.wait_event(self._event)
            else:
                current.wait_stream(self._last)
        self._last = current

    def end(self) -> None:
        """Note that the call which began last has enqueued all of its work."""
        self._event = None
        if self._last is not None and self._last.stream_id == self._last.cuda_stream != 0:
            self._event = self._last.record_event()

    def wait(self) -> None:
        """Block until the last call's work is done."""
        if self._event is not None:
            self._event.synchronize()
        elif self._last is not None:
            self._last.synchronize()
