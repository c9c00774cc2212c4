"""Keeps PyTorch from logging operators that fail on tensors without memory, with tracebacks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_failures_logged"]

_LOG = logging.getLogger("torch._subclasses.fake_tensor")


class _QuietThread(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


@contextmanager
def without_failures_logged() -> Iterator[None]:
    """Log nothing of failing operators in this thread: the exception tells all that the user needs."""
    quiet = _QuietThread()
    _LOG.addFilter(quiet)
    try:
        yield
    finally:
        _LOG.removeFilter(quiet)
