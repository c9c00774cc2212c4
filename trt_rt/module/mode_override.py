"""Temporary changes of modules' modes, which can end in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any

from trt_rt._core.critical import for_each
from trt_rt.module.composition import settings_change
from trt_rt.module.trt_module import TRTModule

__all__ = ["ModeOverride"]


class ModeOverride:
    """A temporary change of modules' modes.

    If several overrides change one mode, the one that began last is in force. After all of them have ended,
    in any order, the value from before the first is back.

    Parameters
    ----------
    changes : mapping of TRTModule to mapping of str to object
        For each module, the fields of `Modes` to change and their new values.
    """

    def __init__(self, changes: Mapping[TRTModule, Mapping[str, Any]]) -> None:
        self._changes = {module.executors: dict(modes) for module, modes in changes.items()}

    def begin(self, refuse: Callable[[], object] | None = None) -> None:
        """Change the modes; `end` undoes it, also if an error or an interrupt has cut it short.

        Parameters
        ----------
        refuse : callable, optional
            Called first, with no other override being applied meanwhile; raises to leave the modes alone.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        settings_change.run(self._begin, refuse)

    def _begin(self, refuse: Callable[[], object] | None) -> None:
        if refuse is not None:
            refuse()
        for executors, modes in self._changes.items():
            executors.override(self, modes)

    def end(self) -> None:
        """Take the change back, without waiting. Idempotent.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed; the modes are changed all the same.
        """
        for_each(methodcaller("restore", self), self._changes)
