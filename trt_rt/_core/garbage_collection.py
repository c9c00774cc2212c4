"""Keeps Python's garbage collector from running in the middle of a CUDA graph capture."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_garbage_collection"]

_lock = threading.RLock()
_count = 0
_was_enabled = False


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """While this thread captures; several may at once.

    The collector may free an engine or a context on the thread that captures, and CUDA ends a capture whose
    own thread frees device memory (CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).
    """
    global _count, _was_enabled
    with _lock:
        if _count == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _count += 1
    try:
        yield
    finally:
        with _lock:
            _count -= 1
            if _count == 0 and _was_enabled:
                gc.enable()
