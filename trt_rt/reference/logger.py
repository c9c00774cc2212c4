"""The logger that a user hands to the runtime, and how the runtime reports through it."""

from __future__ import annotations

import sys
from datetime import datetime

from trt_rt.reference.enums import Severity as LogSeverity

__all__ = ["ILogger", "Logger", "Reporter"]


class ILogger:
    """Base class of loggers: derive from it and define ``log(severity, msg)``.

    Subclasses must call ``ILogger.__init__(self)``, as TensorRT's own class demands.
    """

    Severity = LogSeverity
    INTERNAL_ERROR = LogSeverity.INTERNAL_ERROR
    ERROR = LogSeverity.ERROR
    WARNING = LogSeverity.WARNING
    INFO = LogSeverity.INFO
    VERBOSE = LogSeverity.VERBOSE

    def __init__(self) -> None:
        pass

    def log(self, severity: LogSeverity, msg: str) -> None:
        """Receive one message.

        Parameters
        ----------
        severity : ILogger.Severity
            Its severity.
        msg : str
            Its text.

        Raises
        ------
        NotImplementedError
            If the subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define log(self, severity, msg)")


class Logger(ILogger):
    """A logger that prints to standard output, as TensorRT's does.

    Parameters
    ----------
    min_severity : ILogger.Severity
        Less severe messages are dropped.
    """

    def __init__(self, min_severity: LogSeverity = LogSeverity.WARNING) -> None:
        super().__init__()
        self._min_severity = min_severity

    @property
    def min_severity(self) -> LogSeverity:
        """Less severe messages are dropped."""
        return self._min_severity

    @min_severity.setter
    def min_severity(self, severity: LogSeverity) -> None:
        self._min_severity = severity

    def log(self, severity: LogSeverity, msg: str) -> None:
        """Print one message with the time and its severity."""
        if severity <= self._min_severity:
            letter = "F" if severity is LogSeverity.INTERNAL_ERROR else severity.name[0]
            print(f"[{datetime.now():%m/%d/%Y-%H:%M:%S}] [TRT] [{letter}] {msg}")  # noqa: T201


class Reporter:
    """Formats messages as TensorRT does, and sends them to a logger.

    Parameters
    ----------
    logger : ILogger
        Receives the messages.
    """

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def misuse(self, call: str, reason: str) -> None:
        """Report a call that is wrong: in its arguments, or at this time."""
        self._send(LogSeverity.ERROR, f"{call}: Error Code 3: API Usage Error ({reason})")

    def failure(self, call: str, reason: str) -> None:
        """Report a correct call that failed."""
        self._send(LogSeverity.ERROR, f"{call}: Error Code 2: Internal Error ({reason})")

    def bad_plan(self, call: str, reason: str) -> None:
        """Report that a plan cannot be deserialized."""
        self._send(LogSeverity.ERROR, f"{call}: Error Code 1: Serialization ({reason})")

    def warn(self, message: str) -> None:
        """Report something that is allowed and probably a mistake."""
        self._send(LogSeverity.WARNING, message)

    def inform(self, message: str) -> None:
        """Report an event."""
        self._send(LogSeverity.INFO, message)

    def _send(self, severity: LogSeverity, message: str) -> None:
        try:
            self.logger.log(severity, message)
        except Exception as error:
            # TensorRT calls loggers from C++, which no exception may cross. It prints and continues.
            print(f"[ERROR] Exception caught in log(): {error}", file=sys.stderr)  # noqa: T201
