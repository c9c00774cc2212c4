"""TensorRT's log, forwarded to Python's logging."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from trt_rt._core.callbacks import callback
from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["TensorRTLog"]

logger = logging.getLogger("trt_rt.tensorrt")
logger.addHandler(logging.NullHandler())  # prints nothing in programs that configure no logging

_LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}


class TensorRTLog:
    """One backend's log, which forwards to the logger ``trt_rt.tensorrt`` and keeps the last error.

    Parameters
    ----------
    api : module
        A module with TensorRT's Python API.

    Attributes
    ----------
    ilogger : ILogger
        The logger for the backend's ``Runtime`` and ``Builder``. TensorRT keeps a raw pointer to it and
        expects one logger per process, so it lives as long as the backend.
    """

    def __init__(self, api: ModuleType) -> None:
        self._last_error: dict[int, str] = {}
        self.ilogger = _make_ilogger(api, self._log)

    def _log(self, level: int, message: str) -> None:
        if level >= logging.ERROR:
            self._last_error[threading.get_ident()] = message
        logger.log(level, "%s", message)

    def take_error(self) -> str:
        """Return the last error that TensorRT logged on this thread, or "", and forget it."""
        return self._last_error.pop(threading.get_ident(), "")


def _make_ilogger(api: Any, log: Callable[[int, str], None]) -> Any:
    severities = {getattr(api.ILogger.Severity, name): level for name, level in _LEVELS.items()}

    class Logger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            # pybind11 requires an explicit call of its initialiser.
            api.ILogger.__init__(self)

        @callback()
        def log(self, severity: Any, message: str) -> None:
            # A handler's exception must not travel through TensorRT's C++.
            with contextlib.suppress(Exception):
                log(severities.get(severity, logging.ERROR), message)

    return Logger()


hide_from_dynamo(globals())
