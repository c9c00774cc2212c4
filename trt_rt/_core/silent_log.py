"""Keeps a log quiet in one thread, where an exception or an answer tells all that the user needs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["FAKE_TENSOR_LOG", "silent_log"]

FAKE_TENSOR_LOG = "torch._subclasses.fake_tensor"
"""Where PyTorch logs operators that fail on tensors without memory, with tracebacks."""


@contextmanager
def silent_log(name: str) -> Iterator[None]:
    """Log nothing under a name from this thread."""
    log = logging.getLogger(name)
    thread = threading.get_ident()

    def of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    log.addFilter(of_another_thread)
    try:
        yield
    finally:
        log.removeFilter(of_another_thread)
