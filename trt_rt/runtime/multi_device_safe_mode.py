"""Whether a call makes its engine's device current."""

from __future__ import annotations

import threading
from types import TracebackType

from trt_rt._core import call
from trt_rt.module.restore_points import RestorePoints

__all__ = ["MultiDeviceSafeMode", "get_multi_device_safe_mode", "set_multi_device_safe_mode"]


def set_multi_device_safe_mode(mode: bool) -> MultiDeviceSafeMode:
    """Let calls of engines on another CUDA device than the current one switch to theirs, and back.

    It counts for every engine of the process, from now on, or until a ``with`` block ends that has entered
    what this returns.

    Parameters
    ----------
    mode : bool
        On: each call compares the current device with its engine's; if they differ it switches for the call,
        and warns once, since that costs time. Off, as at the start: nothing is compared, and an engine that
        cannot run under the caller's device raises ExecutionError.

    Returns
    -------
    MultiDeviceSafeMode
        To be used with ``with``, or to be ignored.

    Examples
    --------
    >>> with set_multi_device_safe_mode(True):
    ...     y = module(x)
    """
    return MultiDeviceSafeMode(mode)


def get_multi_device_safe_mode() -> bool:
    """Whether calls of engines on another device than the current one switch to theirs."""
    return call.multi_device_safe_mode()


class MultiDeviceSafeMode:
    """Goes back to an earlier multi-device safe mode; made by `set_multi_device_safe_mode`."""

    def __init__(self, mode: bool) -> None:
        self._mode = bool(mode)
        self._found: bool | None = get_multi_device_safe_mode()
        self._is_entered = False
        call.set_multi_device_safe_mode(self._mode)

    def __enter__(self) -> MultiDeviceSafeMode:
        if self._is_entered:
            raise RuntimeError(
                "this set_multi_device_safe_mode is entered already; call it again for another context."
            )
        self._is_entered = True
        with _lock:
            # At the first entry the mode is on since the call.
            _restore_points.enter(self, get_multi_device_safe_mode() if self._found is None else self._found)
            self._found = None
            call.set_multi_device_safe_mode(self._mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_entered:
            raise RuntimeError("this set_multi_device_safe_mode is left without having been entered.")
        self._is_entered = False
        with _lock:
            _restore_points.leave(self, call.set_multi_device_safe_mode)


_lock = threading.RLock()
_restore_points: RestorePoints[bool] = RestorePoints()
