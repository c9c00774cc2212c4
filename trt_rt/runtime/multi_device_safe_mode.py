"""The control that lets a call make its engine's device current."""

from __future__ import annotations

from collections.abc import Callable

from trt_rt._core import call
from trt_rt._core.critical import Cell, Scope
from trt_rt.module.flags import checked_flag
from trt_rt.module.setting_stack import SettingStack

__all__ = ["MultiDeviceSafeMode", "get_multi_device_safe_mode", "set_multi_device_safe_mode"]


def set_multi_device_safe_mode(mode: bool) -> MultiDeviceSafeMode:
    """Let a call switch to its engine's CUDA device if another one is current, and back.

    The mode applies to every engine of the process from now on. If the returned object is entered with
    ``with``, the mode applies until the block ends.

    Parameters
    ----------
    mode : bool
        True: each call compares the current device with its engine's. If they differ, it switches for the
        call, and warns once, because switching costs time. False, the default: nothing is compared, and an
        engine that cannot run under the caller's device raises ExecutionError.

    Returns
    -------
    MultiDeviceSafeMode
        A context manager, which need not be entered.

    Examples
    --------
    >>> with set_multi_device_safe_mode(True):
    ...     y = module(x)
    """
    return MultiDeviceSafeMode(mode)


def get_multi_device_safe_mode() -> bool:
    """Return whether calls switch to their engine's device."""
    return call.multi_device_safe_mode()


class MultiDeviceSafeMode(Scope["MultiDeviceSafeMode"]):
    """A context manager that restores the earlier mode; `set_multi_device_safe_mode` makes it."""

    def __init__(self, mode: bool) -> None:
        self._mode = checked_flag("mode", mode)
        self._found: bool | None = get_multi_device_safe_mode()
        _change(lambda stack: stack.changed(_MODE, self._mode))

    def _new_entry(self) -> _Entry:
        if self.is_entered:
            raise RuntimeError(
                "this set_multi_device_safe_mode is entered already; call it again for another context."
            )
        # At the first entry the mode is on since the call.
        found, self._found = self._found, None
        return _Entry(self, self._mode, get_multi_device_safe_mode() if found is None else found)


class _Entry:
    """One time that a `MultiDeviceSafeMode` is entered."""

    def __init__(self, control: MultiDeviceSafeMode, mode: bool, found: bool) -> None:
        self._control = control
        self._mode = mode
        self._found = found

    def begin(self) -> MultiDeviceSafeMode:
        """Set the mode."""
        _change(lambda stack: stack.changed(_MODE, self._found).entered(self, {_MODE: self._mode}))
        return self._control

    def end(self, may_wait: bool) -> None:
        """Restore the earlier mode."""
        _change(lambda stack: stack.left(self))


_MODE = "mode"
_stack: Cell[SettingStack] = Cell(SettingStack({_MODE: False}))


def _change(change: Callable[[SettingStack], SettingStack]) -> None:
    """Change the stack, and let the mode be what follows from it, also if other threads do the same."""
    _stack.update(change)
    stack = None
    while stack is not _stack.value:
        stack = _stack.value
        call.set_multi_device_safe_mode(stack.values[_MODE])
