"""The exceptions of trt_rt. All of them derive from :class:`TRTError`."""

from __future__ import annotations

__all__ = [
    "ArchiveError",
    "BackendError",
    "ClosedError",
    "CompileError",
    "ExecutionError",
    "InputError",
    "InputTypeError",
    "InputValueError",
    "PlanError",
    "SettingError",
    "TRTError",
]


class TRTError(Exception):
    """The base class of trt_rt's exceptions."""


class BackendError(TRTError, RuntimeError):
    """A backend is missing, cannot run on this machine, or lacks a requested feature."""


class PlanError(TRTError, ValueError):
    """A plan is truncated, corrupted, or of another kind or version, or its backend refuses it."""


class CompileError(TRTError, RuntimeError):
    """A model could not be exported, parsed or built into an engine."""


class InputError(TRTError):
    """An argument of a call does not fit the engine.

    trt_rt raises it only as one of two subclasses. :class:`InputValueError` is also a ``ValueError`` (a
    shape, a device, a count, an alignment). :class:`InputTypeError` is also a ``TypeError`` (a dtype, or an
    object that is not a tensor).
    """


class InputValueError(InputError, ValueError):
    """An argument has the right type but a shape, device, layout or count that the engine refuses."""


class InputTypeError(InputError, TypeError):
    """An argument is not a tensor, or does not have the engine's dtype."""


class SettingError(TRTError, ValueError, RuntimeError):
    """A setting or a control does not fit the engine, or excludes one that is on.

    Also a ``RuntimeError``, which is what Torch-TensorRT raises for many of these.
    """


class ExecutionError(TRTError, RuntimeError):
    """TensorRT or CUDA refused a call. The message ends with TensorRT's last error message."""


class ClosedError(TRTError, RuntimeError):
    """The engine or module was closed before it was used."""


class ArchiveError(TRTError, ValueError):
    """A file of a program is damaged, of another kind or version, not signed as asked, or cannot be written.

    The message names the file and the record in it, what is allowed, and what to do.
    """
