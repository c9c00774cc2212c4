"""The errors that TensorRT logs during a build, for the message of the exception that reports its failure.

An ``IErrorRecorder`` on the builder would collect them too. But with TensorRT-RTX 1.7.1 the process crashes
when the network, which inherits the recorder, is destroyed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collect_errors"]

_TENSORRT_LOG = logging.getLogger("trt_rt.tensorrt")


class _ErrorCollector(logging.Handler):
    """A log handler that keeps the errors of one thread. Those of other threads belong to other builds."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())


@contextmanager
def collect_errors() -> Iterator[list[str]]:
    """Yield a list of the errors that TensorRT logs from this thread while the context is open."""
    collector = _ErrorCollector()
    _TENSORRT_LOG.addHandler(collector)
    try:
        yield collector.messages
    finally:
        _TENSORRT_LOG.removeHandler(collector)
