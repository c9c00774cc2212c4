"""A program whose first call decides how later calls run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from trt_rt._core.critical import Gate
from trt_rt.capture.kind import OperatorObserver, ProgramKind
from trt_rt.capture.observing import observing

__all__ = ["ObservedProgram"]


class ObservedProgram(torch.nn.Module):
    """A program whose first call is observed. The kind of the program then decides how later calls run.

    Parameters
    ----------
    program : torch.nn.Module
        The program.
    choose : callable
        ``choose(kind)`` gets `ProgramKind.ENGINES` or `ProgramKind.MIXED`, and returns the callable that
        serves later calls.
    """

    def __init__(self, program: torch.nn.Module, choose: Callable[[ProgramKind], Callable[..., Any]]) -> None:
        super().__init__()
        self.program = program
        self._choose = choose
        self._chosen: Callable[..., Any] | None = None
        self._gate = Gate()  # lets a thread in again, because a program may call this wrapper

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program on the caller's current stream; same arguments and result."""
        if self._chosen is None:
            was_called, result = self._gate.run(self._observe, args, kwargs)
            if was_called:
                return result
        assert self._chosen is not None
        return self._chosen(*args, **kwargs)

    def _observe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
        """Call the program, unless another call has done that meanwhile."""
        if self._chosen is not None:
            return False, None
        observer = OperatorObserver()
        result = observing(observer, partial(self.program, *args, **kwargs))
        self._chosen = self._choose(ProgramKind.MIXED if observer.seen else ProgramKind.ENGINES)
        return True, result

    def close(self) -> None:
        """Let later calls run the program itself, also if a first call is under way. Never waits."""
        self._gate.defer(self._close)

    def _close(self) -> None:
        self._chosen = self.program

    @property
    def graph_inputs(self) -> tuple[Any, ...] | None:
        """As `WholeGraph.graph_inputs`; None while calls do not replay one graph of the program."""
        inputs: tuple[Any, ...] | None = getattr(self._chosen, "graph_inputs", None)
        return inputs
