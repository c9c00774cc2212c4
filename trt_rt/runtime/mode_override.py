"""Modes of modules that are changed for a time, and come back whatever the order in which changes end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from trt_rt.module import TRTModule
from trt_rt.module_executors import ModuleExecutors

__all__ = ["ModeOverride"]

# Reentrant: a module that is collected while it is held may end an override of its own.
_lock = threading.RLock()


class ModeOverride:
    """Changes modes of modules until it is undone.

    Of several that change one mode the last that was applied counts. The value from before them all is back
    when the last of them is undone, in whatever order that happens.

    Parameters
    ----------
    changes : mapping of TRTModule to mapping of str to object
        For each module fields of `Modes` and what they become.
    """

    def __init__(self, changes: Mapping[TRTModule, Mapping[str, Any]]) -> None:
        self._changes = {module.executors: dict(modes) for module, modes in changes.items()}

    def apply(self) -> None:
        """Change the modes, for all modules or none.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        with _lock:
            try:
                for executors, modes in self._changes.items():
                    _of_module.setdefault(executors, _Overrides()).add(self, executors, modes)
            except BaseException:
                self.undo()
                raise

    def undo(self) -> None:
        """Let the modes be what they would be without this. Idempotent.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed; the modes are changed all the same.
        """
        with _lock, ExitStack() as undoing:  # undoes all of them, and raises what any has raised
            for executors in self._changes:
                if executors in _of_module:
                    undoing.callback(partial(_of_module[executors].remove, self, executors))


class _Overrides:
    """Those of one module, the last one at the end."""

    def __init__(self) -> None:
        self._applied: dict[ModeOverride, Mapping[str, Any]] = {}
        self._before: dict[str, Any] = {}

    def add(self, override: ModeOverride, executors: ModuleExecutors, modes: Mapping[str, Any]) -> None:
        before = executors.modes
        for mode in modes:
            self._before.setdefault(mode, getattr(before, mode))
        self._applied[override] = modes
        executors.change(**modes)

    def remove(self, override: ModeOverride, executors: ModuleExecutors) -> None:
        modes = self._applied.pop(override, None)
        if modes is not None:
            executors.change(**{mode: self._value(mode) for mode in modes})

    def _value(self, mode: str) -> Any:
        for modes in reversed(self._applied.values()):
            if mode in modes:
                return modes[mode]
        return self._before.pop(mode)


# They must not hold on to the executors, or no module would ever be collected.
_of_module: WeakKeyDictionary[ModuleExecutors, _Overrides] = WeakKeyDictionary()
