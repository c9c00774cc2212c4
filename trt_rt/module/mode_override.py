"""Modes of modules that are changed for a time, and come back whatever the order in which changes end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from trt_rt.module.executors import ModuleExecutors
from trt_rt.module.restore_points import RestorePoints
from trt_rt.module.trt_module import TRTModule

__all__ = ["ModeOverride"]

# Reentrant: a module that is collected while it is held may end an override of its own.
_lock = threading.RLock()


class ModeOverride:
    """Changes modes of modules until it is undone.

    Of several that change one mode the last that was applied counts, until it is undone. The value from
    before them all is back when all are undone, in whatever order that happens.

    Parameters
    ----------
    changes : mapping of TRTModule to mapping of str to object
        For each module fields of `Modes` and what they become.
    """

    def __init__(self, changes: Mapping[TRTModule, Mapping[str, Any]]) -> None:
        self._changes = {module.executors: dict(modes) for module, modes in changes.items()}

    def apply(self, refuse: Callable[[], object] | None = None) -> None:
        """Change the modes, for all modules or none.

        Parameters
        ----------
        refuse : callable, optional
            Called first, with no other override being applied meanwhile; raises to leave the modes alone.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        with _lock:
            if refuse is not None:
                refuse()
            try:
                for executors, modes in self._changes.items():
                    _of_module.setdefault(executors, _ModesFound()).override(self, executors, modes)
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
                    undoing.callback(partial(_of_module[executors].restore, self, executors))


class _ModesFound:
    """What overrides have found in one module."""

    def __init__(self) -> None:
        self._of_mode: dict[str, RestorePoints[Any]] = {}

    def override(self, owner: ModeOverride, executors: ModuleExecutors, modes: Mapping[str, Any]) -> None:
        before = executors.modes
        for mode in modes:
            self._of_mode.setdefault(mode, RestorePoints()).enter(owner, getattr(before, mode))
        executors.change(**modes)

    def restore(self, owner: ModeOverride, executors: ModuleExecutors) -> None:
        restored: dict[str, Any] = {}
        for mode, points in self._of_mode.items():
            points.leave(owner, partial(restored.__setitem__, mode))
        if restored:
            executors.change(**restored)


# They must not hold on to the executors, or no module would ever be collected.
_of_module: WeakKeyDictionary[ModuleExecutors, _ModesFound] = WeakKeyDictionary()
