"""The context manager of the controls that switch modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch.export import ExportedProgram

from trt_rt._core.critical import Scope
from trt_rt.module.composition import refuse_if
from trt_rt.module.find_engines import as_module, find_engines
from trt_rt.module.mode_override import ModeOverride
from trt_rt.module.trt_module import TRTModule

__all__ = ["ModeEntry", "ModeManager"]

# What ``as`` gives: the module, or something that can be called in its place.
Called = TypeVar("Called")


class ModeManager(Scope[Called], Generic[Called]):
    """A context that switches modes of all engines of a module.

    Contexts of one module may be nested and left in any order; the one entered last is in force. Leaving a
    context, also by an exception, restores the earlier modes. A context can be entered again after that.

    Parameters
    ----------
    control : str
        The control's name, for messages and for `trt_rt.module.composition.refuse_if`.
    module : torch.nn.Module or torch.export.ExportedProgram
        A module or program with at least one engine anywhere in it.
    modes : callable
        ``modes(engine_module)`` returns, at entry, the fields of `Modes` to change for one engine.
    called : callable
        ``called(module)`` returns the object that ``as`` binds.

    Raises
    ------
    ValueError
        If there is no engine in `module`.
    TypeError
        If it is neither a module nor a program.
    """

    def __init__(
        self,
        control: str,
        module: torch.nn.Module | ExportedProgram,
        modes: Callable[[TRTModule], Mapping[str, Any]],
        called: Callable[[torch.nn.Module], Called],
    ) -> None:
        self._control = control
        self._module = as_module(module)
        self._engines = find_engines(self._module)
        self._modes = modes
        self._called = called

    def _new_entry(self) -> ModeEntry[Called]:
        if self.is_entered:
            raise RuntimeError(
                f"this {self._control} is entered already; call {self._control} again for another context."
            )
        refuse = partial(refuse_if, self._engines, self._control)
        return ModeEntry(self._called(self._module), self._new_override(), refuse)

    def _new_override(self) -> ModeOverride:
        return ModeOverride({engine: self._modes(engine) for engine in self._engines})


class ModeEntry(Generic[Called]):
    """One entry of a `ModeManager`."""

    def __init__(self, called: Called, override: ModeOverride, refuse: Callable[[], object]) -> None:
        self._called = called
        self._override = override
        self._refuse = refuse

    def begin(self) -> Called:
        """Switch the modes, and return the object that ``as`` binds."""
        self._override.begin(self._refuse)
        return self._called

    def end(self, may_wait: bool) -> None:
        """Restore the modes without waiting, so that a finalizer may do it."""
        self._override.end()
