"""Lets a listener hear of the calls of a module: of its engines, and of programs around them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.capture import WholeGraph
from trt_rt.module import TRTModule
from trt_rt.module.call_observer import CallListener, Span
from trt_rt.module.find_engines import find_engines
from trt_rt.module.hooks import remove_forward_hooks

__all__ = ["Observation"]


class Observation:
    """A listener and the modules whose calls it hears of.

    Engines tell of everything within their calls. The module itself, if it is not an engine, and each program
    that is run as one CUDA graph get a hook before and after their calls: these are spans of the kind
    ``program``.

    Parameters
    ----------
    module : torch.nn.Module
        A module with engines anywhere in it.
    listener : CallListener
        Who hears of calls.

    Raises
    ------
    ValueError
        If there is no engine in `module`.
    """

    def __init__(self, module: torch.nn.Module, listener: CallListener) -> None:
        self.engines = tuple(find_engines(module))
        programs: list[torch.nn.Module] = [part for part in module.modules() if isinstance(part, WholeGraph)]
        if not isinstance(module, (TRTModule, WholeGraph)):
            programs.append(module)
        self._programs = [_ProgramCalls(program, listener) for program in programs]
        self._listener = listener

    def begin(self) -> None:
        """Let the listener hear of calls. `end` undoes it, also if this was cut short."""
        for engine in self.engines:
            engine.observe(self._listener)
        for program in self._programs:
            program.begin()

    def end(self) -> None:
        """Let it hear of no more calls, without waiting for those under way. Idempotent."""
        with ExitStack() as ending:  # ends all of them, and raises what any has raised
            for program in self._programs:
                ending.callback(program.end)
            for engine in self.engines:
                ending.callback(engine.unobserve, self._listener)


class _ProgramCalls:
    """Hooks that tell a listener of a program's calls."""

    def __init__(self, program: torch.nn.Module, listener: CallListener) -> None:
        self._program = program
        self._listener = listener
        self._calls = _OpenCalls()
        # One object each, by which the hooks are found again.
        self._before: Callable[..., None] = self._begin_call
        self._after: Callable[..., None] = self._end_call

    def begin(self) -> None:
        self._program.register_forward_pre_hook(self._before, prepend=True)
        self._program.register_forward_hook(self._after, always_call=True)

    def end(self) -> None:
        remove_forward_hooks(self._program, self._before, self._after)
        self._calls.close()

    def _begin_call(self, program: torch.nn.Module, args: tuple[Any, ...]) -> None:
        inner = program.program if isinstance(program, WholeGraph) else program
        span = Span("program", type(inner).__name__)
        self._calls.open.append((span, _counts(program), self._listener.begin(span)))

    def _end_call(self, program: torch.nn.Module, args: tuple[Any, ...], result: Any) -> None:
        if self._calls.open:  # empty if the hooks came in the middle of a call
            span, before, end = self._calls.open.pop()
            span.counts = {name: count - before[name] for name, count in _counts(program).items()}
            end()


class _OpenCalls(threading.local):
    """The calls of a thread that have begun. After Ctrl-C, PyTorch does not call the hook that ends one."""

    def __init__(self) -> None:
        self.open: list[tuple[Span, dict[str, int], Callable[[], object]]] = []

    def close(self) -> None:
        """End the thread's calls."""
        while self.open:
            self.open.pop()[2]()


def _counts(program: torch.nn.Module) -> dict[str, int]:
    return program.stats() if isinstance(program, WholeGraph) else {}


hide_from_dynamo(globals())
