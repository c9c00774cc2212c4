"""The controls of CUDA graphs: for a module inside a context, and for the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch.export import ExportedProgram

from trt_rt._core.critical import Cell, Scope, for_each
from trt_rt.capture import ObservedProgram, ProgramKind, WholeGraph, program_kind
from trt_rt.engine import Engine
from trt_rt.errors import SettingError
from trt_rt.module import TRTModule
from trt_rt.module.composition import refuse_if
from trt_rt.module.counts import checked_count
from trt_rt.module.executors import default_cuda_graphs, set_default_cuda_graphs
from trt_rt.module.find_engines import as_module, find_engines
from trt_rt.module.flags import checked_flag
from trt_rt.module.mode_override import ModeOverride
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = [
    "EnableCudagraphs",
    "enable_cudagraphs",
    "get_cudagraphs_mode",
    "get_whole_cudagraphs_mode",
    "set_cudagraphs_mode",
    "set_whole_cudagraphs_mode",
]

_whole_by_default = False
_active: Cell[tuple[_Graphs, ...]] = Cell(())  # of all threads


def set_cudagraphs_mode(mode: bool) -> None:
    """Switch CUDA graphs, one for each engine, for all modules without a setting of their own.

    Parameters
    ----------
    mode : bool
        Whether calls replay graphs, also of modules that are made later. `enable_cudagraphs` overrides the
        mode for its module.

    Notes
    -----
    This function refuses no engine. While the mode is on, a call raises ExecutionError if the size of one of
    its engine's outputs depends on data.

    Examples
    --------
    >>> set_cudagraphs_mode(True)
    >>> get_cudagraphs_mode()
    True
    >>> set_cudagraphs_mode(False)
    """
    set_default_cuda_graphs(checked_flag("mode", mode))


def get_cudagraphs_mode() -> bool:
    """Return whether modules replay CUDA graphs, one for each engine.

    Returns
    -------
    bool
        True within an `enable_cudagraphs` of this thread that gives each engine a graph. Else what
        `set_cudagraphs_mode` has set, for modules with no setting of their own.
    """
    return _is_active(is_whole=False) or default_cuda_graphs()


def set_whole_cudagraphs_mode(mode: bool) -> None:
    """Let `enable_cudagraphs` capture one graph of the whole program by default.

    Parameters
    ----------
    mode : bool
        True: it captures one graph of the whole program. False, the default: it looks at the program.
    """
    global _whole_by_default
    _whole_by_default = checked_flag("mode", mode)


def get_whole_cudagraphs_mode() -> bool:
    """Return whether programs are captured as a whole.

    Returns
    -------
    bool
        True within an `enable_cudagraphs` of this thread that captures its program as a whole. Else what
        `set_whole_cudagraphs_mode` has set.

    Notes
    -----
    Where the kind of graph depends on what a first call does, there is none before that call.
    """
    return _is_active(is_whole=True) or _whole_by_default


def _is_active(*, is_whole: bool) -> bool:
    thread = threading.get_ident()
    return any(graphs.is_whole is is_whole and graphs.thread == thread for graphs in _active.value)


@takes_compiled_module
def enable_cudagraphs(
    module: torch.nn.Module | ExportedProgram,
    *,
    whole_graph: bool | None = None,
    max_graphs: int = 32,
    frozen: bool | None = None,
) -> EnableCudagraphs:
    """Run a module through CUDA graphs, which are launched without a call to TensorRT.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        An engine, or a program with engines anywhere in it.
    whole_graph : bool, optional
        True: one graph of the whole program, with its PyTorch operators. False: a graph for each engine.
        Default: the mode of `set_whole_cudagraphs_mode`. If that is off, one graph of the whole program if
        PyTorch operators run between its engines and all engines are on one device, and else a graph for each
        engine. trt_rt reads this from the program's structure if it can, and else observes the first call.
    max_graphs : int, optional
        The number of graphs that are kept for each engine and stream, or for the program.
    frozen : bool, optional
        True promises that no parameter or buffer of the program is replaced or moved to other memory while
        graphs are on. Calls of one graph of the whole program then do not check for it. Values may change in
        place. Default: the program's attribute ``is_frozen``, or False if it has none.

    Returns
    -------
    EnableCudagraphs
        A context manager. ``as`` binds the module to call: `module` itself, or a `WholeGraph` of it.

    Raises
    ------
    ValueError
        At entry, with the reason: there is no engine in the module, the size of an output depends on data, a
        control that excludes this one is on (for example profiling), `whole_graph` is True for engines on
        several devices, or `max_graphs` is less than 1 or more than 65,536. What does not fit an engine is a
        SettingError, which is also a RuntimeError.
    TypeError
        At entry: `module` is neither a module nor a program, or `max_graphs` is not an integer.

    Notes
    -----
    If the size of an output depends on data only for some shapes, the first call with such shapes raises
    ExecutionError. Leaving the context, also by an exception, drops all graphs and restores the earlier
    settings.

    Examples
    --------
    >>> with enable_cudagraphs(module) as graphed:
    ...     y = graphed(x)  # captures a graph
    ...     y = graphed(x)  # replays it
    >>> module.stats()["captures"], module.stats()["replays"]
    (1, 1)
    """
    return EnableCudagraphs(module, whole_graph, max_graphs, frozen)


class EnableCudagraphs(Scope[torch.nn.Module]):
    """A context in which a module runs through CUDA graphs; `enable_cudagraphs` makes it."""

    def __init__(
        self,
        module: torch.nn.Module | ExportedProgram,
        whole_graph: bool | None,
        max_graphs: int,
        frozen: bool | None,
    ) -> None:
        self._given = module
        self._whole_graph = None if whole_graph is None else checked_flag("whole_graph", whole_graph)
        self._max_graphs = max_graphs
        self._frozen = None if frozen is None else checked_flag("frozen", frozen)

    def _new_entry(self) -> _Graphs:
        if self.is_entered:
            raise RuntimeError(
                "this enable_cudagraphs is entered already; call enable_cudagraphs again for another context."
            )
        max_graphs = checked_count("max_graphs", self._max_graphs, "CUDA graphs that are kept")
        module = as_module(self._given)
        if any(isinstance(part, (WholeGraph, ObservedProgram)) for part in module.modules()):
            raise SettingError(
                "the module is run as one CUDA graph already: leave that enable_cudagraphs first."
            )
        engines = find_engines(module)
        _refuse_data_dependent({part.engine for part in engines})
        whole_graph = self._whole_graph
        if whole_graph is None and _whole_by_default:
            whole_graph = True
        if whole_graph:
            _refuse_several_devices(engines)
        frozen = getattr(module, "is_frozen", False) is True if self._frozen is None else self._frozen
        is_whole = _is_whole(module, engines, whole_graph)
        return _Graphs(module, engines, max_graphs, is_whole, frozen)


def _is_whole(module: torch.nn.Module, engines: Sequence[TRTModule], whole_graph: bool | None) -> bool | None:
    """Return whether to capture one graph of the whole program; None if only a call can show it."""
    if whole_graph is not None:
        return whole_graph
    if len({part.engine.device for part in engines}) > 1:
        return False
    kind = program_kind(module)
    return None if kind is ProgramKind.UNKNOWN else kind is ProgramKind.MIXED


def _refuse_data_dependent(engines: Iterable[Engine]) -> None:
    """Refuse outputs whose size depends on data: a graph cannot contain the allocation of their memory."""
    for engine in engines:
        names = engine.data_dependent_outputs
        if names:
            raise SettingError(
                f"engine {engine.name!r} cannot be run as a CUDA graph: the size of output "
                f"{' and '.join(map(repr, names))} depends on data, so its memory is allocated in the run."
            )


def _refuse_several_devices(engines: Sequence[TRTModule]) -> None:
    devices = sorted({str(part.engine.device) for part in engines})
    if len(devices) > 1:
        raise SettingError(
            f"the program has engines on {' and '.join(devices)}, but a CUDA graph has one device. "
            "Use whole_graph=False."
        )


class _Graphs:
    """One time that `EnableCudagraphs` is entered.

    Attributes
    ----------
    is_whole : bool or None
        Whether there is one graph of the whole program, instead of a graph for each engine. None until the
        first call has shown it.
    thread : int
        Which thread has entered it.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        engines: Sequence[TRTModule],
        max_graphs: int,
        is_whole: bool | None,
        frozen: bool,
    ) -> None:
        self._module = module
        self._engines = engines
        self._max_graphs = max_graphs
        self.is_whole = is_whole
        self.thread = threading.get_ident()
        self._frozen = frozen
        self._to_end: list[Callable[[], None]] = []
        self._is_over = False

    def begin(self) -> torch.nn.Module:
        """Switch graphs on, and return the module to call."""
        # Engines launch no graphs of their own while one graph of the whole program is captured, nor while
        # the first call is observed, because it may lead to such a graph.
        self._switch_engines(self.is_whole is False, partial(refuse_if, self._engines, "enable_cudagraphs"))
        _active.update(lambda active: (*active, self))
        if self.is_whole is not None:
            return self._callable(self.is_whole)
        observed = ObservedProgram(self._module, self._choose)
        self._to_end.append(observed.close)
        return observed

    def end(self, may_wait: bool) -> None:
        """Switch graphs off without waiting. A graph that another thread's call uses goes after that call."""
        self._is_over = True
        _active.update(lambda active: tuple(graphs for graphs in active if graphs is not self))
        for_each(lambda end: end(), reversed(self._to_end))

    def _choose(self, kind: ProgramKind) -> torch.nn.Module:
        is_whole = kind is ProgramKind.MIXED
        if not is_whole:
            self._switch_engines(True)
        chosen = self._callable(is_whole)
        self.is_whole = is_whole
        if self._is_over:  # another thread has left the context during the first call
            self.end(may_wait=False)
        return chosen

    def _callable(self, is_whole: bool) -> torch.nn.Module:
        if not is_whole:
            return self._module
        whole = WholeGraph(self._module, self._engines, self._max_graphs, frozen=self._frozen)
        self._to_end.append(whole.close)
        return whole

    def _switch_engines(self, enabled: bool, refuse: Callable[[], object] | None = None) -> None:
        modes = {"cuda_graphs": enabled, "whole_graph": not enabled, "max_graphs": self._max_graphs}
        override = ModeOverride(dict.fromkeys(self._engines, modes))
        self._to_end.append(override.end)
        override.begin(refuse)
