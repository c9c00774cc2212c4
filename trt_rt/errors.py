"""Exceptions that trt_rt raises; every one derives from :class:`TRTError`."""

from __future__ import annotations

__all__ = [
    "BackendError",
    "ClosedError",
    "CompileError",
    "ExecutionError",
    "InputError",
    "InputTypeError",
    "InputValueError",
    "PlanError",
    "TRTError",
]


class TRTError(Exception):
    """Base of every exception that trt_rt raises on purpose."""


class BackendError(TRTError, RuntimeError):
    """A backend is missing, cannot run on this machine, or lacks what was asked of it."""


class PlanError(TRTError, ValueError):
    """A plan is truncated, corrupted, of another kind or version, or its backend refuses it."""


class CompileError(TRTError, RuntimeError):
    """A model could not be exported, parsed or built into an engine."""


class InputError(TRTError):
    """An argument of a call does not fit the engine.

    Always raised as :class:`InputValueError` (also a ``ValueError``: a shape, a device, a count, an
    alignment) or :class:`InputTypeError` (also a ``TypeError``: a dtype, or not a tensor at all).
    """


class InputValueError(InputError, ValueError):
    """An argument has the right type but a shape, device, layout or count that the engine refuses."""


class InputTypeError(InputError, TypeError):
    """An argument is not a tensor, or its dtype is not the engine's."""


class ExecutionError(TRTError, RuntimeError):
    """TensorRT or CUDA refused a call; the message ends with TensorRT's own last one."""


class ClosedError(TRTError, RuntimeError):
    """The engine or module was closed before it was used."""
