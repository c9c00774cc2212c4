"""What TensorRT logs as errors during a build, for the exception that reports its failure.

TensorRT's own way, an ``IErrorRecorder`` on the builder, is no way from Python: with TensorRT-RTX 1.7.1 the
process crashes when the network that inherited the recorder is destroyed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collect_errors"]

_TENSORRT_LOG = logging.getLogger("trt_rt.tensorrt")


class _ErrorCollector(logging.Handler):
    """Keeps the errors that one thread logs; another's belong to another build."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())


@contextmanager
def collect_errors() -> Iterator[list[str]]:
    """Give a list to which every error that TensorRT logs from this thread is appended meanwhile."""
    collector = _ErrorCollector()
    _TENSORRT_LOG.addHandler(collector)
    try:
        yield collector.messages
    finally:
        _TENSORRT_LOG.removeHandler(collector)
