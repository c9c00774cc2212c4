"""Builds that Ctrl-C ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import TypeVar

import torch

__all__ = ["run_cancellable"]

_Result = TypeVar("_Result")


def run_cancellable(work: Callable[[], _Result], cancelled: Event) -> _Result:
    """Run `work` in a thread of its own, and wait for it here, where signals arrive.

    TensorRT reports progress from inside its C++, through which no exception may travel, and Python raises
    KeyboardInterrupt wherever the main thread happens to be. So the main thread must not be in there.

    Parameters
    ----------
    work : callable
        Should end soon once `cancelled` is set. It runs on the caller's current CUDA device.
    cancelled : threading.Event
        Set if this thread is interrupted.

    Returns
    -------
    object
        What `work` returns; what it raises is raised.

    Raises
    ------
    KeyboardInterrupt
        Or whatever else a signal handler raises here: after `work` has ended.
    """
    outcome: Future[_Result] = Future()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            if device is not None:
                torch.cuda.set_device(device)
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = Thread(target=run, name="trt_rt build")
    try:
        # A signal can arrive in here too, when the thread may have begun or not.
        thread.start()
        return outcome.result()
    except BaseException:
        if not outcome.done():
            cancelled.set()
            if not outcome.cancel():
                wait([outcome])
        raise
