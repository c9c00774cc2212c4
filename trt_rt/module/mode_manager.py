"""What the controls that switch modes have in common: a context around some calls of a module."""

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
    """Switches modes of all engines of a module while a ``with`` block runs.

    Contexts of one module may be nested in any order, and left in any: the last one that was entered counts.
    On leaving, also by an exception, the modes from before are back. It can be entered again after that.

    Parameters
    ----------
    control : str
        One of `trt_rt.module.composition.CONTROLS`.
    module : torch.nn.Module or torch.export.ExportedProgram
        With at least one engine anywhere in it.
    modes : callable
        ``modes(engine_module)`` gives, at entry, the fields of `Modes` to change for one engine.
    called : callable
        ``called(module)`` gives what ``as`` binds.

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
    """One time that a `ModeManager` is entered."""

    def __init__(self, called: Called, override: ModeOverride, refuse: Callable[[], object]) -> None:
        self._called = called
        self._override = override
        self._refuse = refuse

    def begin(self) -> Called:
        """Switch the modes; returns what ``as`` binds."""
        self._override.begin(self._refuse)
        return self._called

    def end(self, may_wait: bool) -> None:
        """Switch them back. Never waits, so that a finalizer may do it."""
        self._override.end()
