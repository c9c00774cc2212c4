"""Builds that end at Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import TypeVar

import torch

__all__ = ["run_cancellable"]

_Result = TypeVar("_Result")


def run_cancellable(work: Callable[[], _Result], cancelled: Event) -> _Result:
    """Run `work` in a thread of its own, and wait for it in this one.

    Python raises KeyboardInterrupt in the main thread, wherever that is. TensorRT calls the progress monitor
    from C++, through which no exception may travel. So the main thread must not run the builder.

    Parameters
    ----------
    work : callable
        The work. It must end soon after `cancelled` is set. It runs on the caller's current CUDA device.
    cancelled : threading.Event
        Set when this thread is interrupted.

    Returns
    -------
    object
        The result of `work`. Its exceptions are raised here.

    Raises
    ------
    KeyboardInterrupt
        Or another exception that a signal handler raises here. It is raised after `work` has ended.
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
        # A signal can arrive during start() too, before or after the thread has begun.
        thread.start()
        return outcome.result()
    except BaseException:
        if not outcome.done():
            cancelled.set()
            if not outcome.cancel():
                wait([outcome])
        raise
