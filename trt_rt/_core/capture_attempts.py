"""Decides whether to capture a CUDA graph again after CUDA has invalidated a capture.

CUDA invalidates every capture of a device when any thread waits for the whole device. The run before the
capture is not affected, so such a call has its result, and only the graph is missing.
"""

from __future__ import annotations

import warnings

import torch

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.errors import ExecutionError

__all__ = ["CaptureAttempts", "CaptureInvalidatedError", "is_refused_operation", "raise_invalidated"]

_LIMIT = 3

# CUDA's texts of CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED and of CUDA_ERROR_STREAM_CAPTURE_INVALIDATED. PyTorch
# and TensorRT pass on the text, but not always the number.
_REFUSED_OPERATION = "operation not permitted when stream is capturing"
_FAILED_BEFORE = "operation failed due to a previous error during capture"


class CaptureInvalidatedError(ExecutionError):
    """CUDA has ended a capture that could have succeeded. Callers of a module never get this error."""


def is_refused_operation(message: str) -> bool:
    """Whether an error of work that is captured says that the work itself cannot be captured.

    The operation that CUDA refuses gets one error. Every other operation of a capture that is invalidated
    gets another one.
    """
    return _REFUSED_OPERATION in message


def raise_invalidated(error: BaseException, *, is_invalidated: bool) -> None:
    """Raise CaptureInvalidatedError in place of an error that came out of a capture, if that is the reason.

    Parameters
    ----------
    error : BaseException
        What the captured work, or the end of the capture, has raised.
    is_invalidated : bool
        Whether CUDA had invalidated the capture by then.
    """
    message = str(error)
    if (
        (is_invalidated or _FAILED_BEFORE in message)
        and isinstance(error, RuntimeError)
        and not isinstance(error, torch.OutOfMemoryError)
        and not is_refused_operation(message)
    ):
        raise CaptureInvalidatedError(f"{type(error).__name__}: {message}") from error


class CaptureAttempts:
    """The captures of one engine's executor, or of one program.

    Parameters
    ----------
    what : str
        What is captured, for the warning.

    Attributes
    ----------
    invalidated : int
        How many captures CUDA has invalidated.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._in_succession = 0
        self.invalidated = 0

    @property
    def are_over(self) -> bool:
        """Whether nothing is captured any more, because CUDA has invalidated several captures in turn."""
        return self._in_succession >= _LIMIT

    def note_captured(self) -> None:
        """Note that a capture has succeeded."""
        self._in_succession = 0

    def note_invalidated(self, error: CaptureInvalidatedError) -> None:
        """Note that CUDA has invalidated a capture, and warn when it is the last attempt."""
        self.invalidated += 1
        self._in_succession += 1
        if self._in_succession == _LIMIT:
            warnings.warn(
                f"CUDA has invalidated {_LIMIT} captures of {self._what} in succession, so calls without a "
                "CUDA graph run without one from now on, until enable_cudagraphs is entered again. Either "
                "other threads wait for the whole device meanwhile, as torch.cuda.synchronize() does, or the "
                f"captured work does what a CUDA graph cannot contain. {error}",
                RuntimeWarning,
                stacklevel=2,
            )


hide_from_dynamo(globals())
