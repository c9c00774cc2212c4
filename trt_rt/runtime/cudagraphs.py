"""Switches CUDA graphs: for a module while a context lasts, and for the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch.export import ExportedProgram

from trt_rt._core.critical import Scope
from trt_rt.capture import ObservedProgram, ProgramKind, WholeGraph, program_kind
from trt_rt.engine import Engine
from trt_rt.module import TRTModule
from trt_rt.module.composition import refuse_if
from trt_rt.module.counts import checked_count
from trt_rt.module.executors import default_cuda_graphs, set_default_cuda_graphs
from trt_rt.module.find_engines import as_module, find_engines
from trt_rt.module.mode_override import ModeOverride

__all__ = [
    "EnableCudagraphs",
    "enable_cudagraphs",
    "get_cudagraphs_mode",
    "get_whole_cudagraphs_mode",
    "set_cudagraphs_mode",
    "set_whole_cudagraphs_mode",
]

_whole_by_default = False


def set_cudagraphs_mode(mode: bool) -> None:
    """Switch CUDA graphs, one for each engine, for modules that have no setting of their own, now and later.

    Parameters
    ----------
    mode : bool
        Whether calls replay graphs. `enable_cudagraphs` overrides it for its module.

    Notes
    -----
    Refused is here what a call finds: with graphs on, a call of an engine that has outputs whose size depends
    on data, or whose weights are streamed, raises ExecutionError.
    """
    set_default_cuda_graphs(mode)


def get_cudagraphs_mode() -> bool:
    """Whether modules with no setting of their own replay CUDA graphs, one for each engine."""
    return default_cuda_graphs()


def set_whole_cudagraphs_mode(mode: bool) -> None:
    """Let `enable_cudagraphs` capture programs as a whole, unless it is told otherwise.

    Parameters
    ----------
    mode : bool
        False, the default: `enable_cudagraphs` looks at the program.
    """
    global _whole_by_default
    _whole_by_default = mode


def get_whole_cudagraphs_mode() -> bool:
    """What `set_whole_cudagraphs_mode` has set."""
    return _whole_by_default


def enable_cudagraphs(
    module: torch.nn.Module | ExportedProgram,
    *,
    whole_graph: bool | None = None,
    max_graphs: int = 32,
    frozen: bool | None = None,
) -> EnableCudagraphs:
    """Run a module through CUDA graphs, which are launched with no call to TensorRT.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        An engine, or a program with engines anywhere in it.
    whole_graph : bool, optional
        True: one graph of the whole program; its PyTorch operators too. False: a graph for each engine.
        Default: what `set_whole_cudagraphs_mode` has set; else the whole program if PyTorch operators stand
        between its engines, and all of these are on one device. That is read from the program's structure, or
        where it has none that can be read, seen in its first call.
    max_graphs : int, optional
        Graphs that are kept for each engine and stream, or for the program.
    frozen : bool, optional
        True: no parameter or buffer of the program is replaced or given other memory while graphs are on, so
        that the calls of one graph of the whole program need not look at them. Values may change in place.
        Default: what the program says of itself in an attribute ``is_frozen``, else False.

    Returns
    -------
    EnableCudagraphs
        ``with`` it, ``as`` gives what to call in place of `module`: the module itself, or a `WholeGraph` of
        it.

    Raises
    ------
    ValueError
        At entry, with the reason: no engine in the module, an output whose size depends on data, a control
        that is on and excludes this one (weights that are streamed), `whole_graph` for engines on several
        devices, `max_graphs` less than 1 or more than 65,536.
    TypeError
        At entry, if `module` is neither a module nor a program, or `max_graphs` is no integer.

    Notes
    -----
    Outputs whose size depends on data for some shapes only are found at the first call with such shapes,
    which raises ExecutionError. On leaving, also by an exception, all graphs are dropped and the earlier
    settings are back.
    """
    return EnableCudagraphs(module, whole_graph, max_graphs, frozen)


class EnableCudagraphs(Scope[torch.nn.Module]):
    """Runs a module through CUDA graphs while a ``with`` block runs; `enable_cudagraphs` makes it."""

    def __init__(
        self,
        module: torch.nn.Module | ExportedProgram,
        whole_graph: bool | None,
        max_graphs: int,
        frozen: bool | None,
    ) -> None:
        self._given = module
        self._whole_graph = whole_graph
        self._max_graphs = max_graphs
        self._frozen = frozen

    def _new_entry(self) -> _Graphs:
        if self.is_entered:
            raise RuntimeError(
                "this enable_cudagraphs is entered already; call enable_cudagraphs again for another context."
            )
        max_graphs = checked_count("max_graphs", self._max_graphs, "CUDA graphs that are kept")
        module = as_module(self._given)
        if any(isinstance(part, (WholeGraph, ObservedProgram)) for part in module.modules()):
            raise ValueError(
                "the module is run as one CUDA graph already: leave that enable_cudagraphs first."
            )
        engines = find_engines(module)
        _refuse_data_dependent({engine.engine for engine in engines})
        whole_graph = _whole_by_default or None if self._whole_graph is None else self._whole_graph
        if whole_graph:
            _refuse_several_devices(engines)
        frozen = getattr(module, "is_frozen", False) is True if self._frozen is None else self._frozen
        return _Graphs(module, engines, max_graphs, _wanted_kind(module, engines, whole_graph), frozen)


def _wanted_kind(
    module: torch.nn.Module, engines: Sequence[TRTModule], whole_graph: bool | None
) -> ProgramKind:
    if whole_graph is not None:
        return ProgramKind.MIXED if whole_graph else ProgramKind.ENGINES
    if len({engine.engine.device for engine in engines}) > 1:
        return ProgramKind.ENGINES
    return program_kind(module)


def _refuse_data_dependent(engines: Iterable[Engine]) -> None:
    """Refuse outputs whose size depends on data: their memory is allocated in the run, which no graph can."""
    for engine in engines:
        names = engine.data_dependent_outputs
        if names:
            raise ValueError(
                f"engine {engine.name!r} cannot be run as a CUDA graph: the size of output "
                f"{' and '.join(map(repr, names))} depends on data, so its memory is allocated in the run."
            )


def _refuse_several_devices(engines: Sequence[TRTModule]) -> None:
    devices = sorted({str(engine.engine.device) for engine in engines})
    if len(devices) > 1:
        raise ValueError(
            f"the program has engines on {' and '.join(devices)}, and a CUDA graph is of one device. "
            "Use whole_graph=False."
        )


class _Graphs:
    """One time that `EnableCudagraphs` is entered."""

    def __init__(
        self,
        module: torch.nn.Module,
        engines: Sequence[TRTModule],
        max_graphs: int,
        kind: ProgramKind,
        frozen: bool,
    ) -> None:
        self._module = module
        self._engines = engines
        self._max_graphs = max_graphs
        self._kind = kind
        self._frozen = frozen
        self._to_end: list[Callable[[], None]] = []
        self._is_over = False

    def begin(self) -> torch.nn.Module:
        """Switch graphs on; returns what is to be called."""
        # While the whole program is captured, its engines must not launch graphs of their own.
        self._switch_engines(
            self._kind is ProgramKind.ENGINES, partial(refuse_if, self._engines, "enable_cudagraphs")
        )
        if self._kind is not ProgramKind.UNKNOWN:
            return self._callable(self._kind)
        observed = ObservedProgram(self._module, self._choose)
        self._to_end.append(observed.close)
        return observed

    def end(self, may_wait: bool) -> None:
        """Switch them off. Never waits: graphs that another thread's call uses go when that has ended."""
        self._is_over = True
        with ExitStack() as ending:  # ends all of them, and raises what any has raised
            for end in self._to_end:
                ending.callback(end)

    def _choose(self, kind: ProgramKind) -> torch.nn.Module:
        if kind is ProgramKind.ENGINES:
            self._switch_engines(True)
        chosen = self._callable(kind)
        if self._is_over:  # another thread has left the context during the first call
            self.end(may_wait=False)
        return chosen

    def _callable(self, kind: ProgramKind) -> torch.nn.Module:
        if kind is ProgramKind.ENGINES:
            return self._module
        whole = WholeGraph(self._module, self._engines, self._max_graphs, frozen=self._frozen)
        self._to_end.append(whole.close)
        return whole

    def _switch_engines(self, enabled: bool, refuse: Callable[[], object] | None = None) -> None:
        modes = {"cuda_graphs": enabled, "whole_graph": not enabled, "max_graphs": self._max_graphs}
        override = ModeOverride(dict.fromkeys(self._engines, modes))
        self._to_end.append(override.end)
        override.begin(refuse)
