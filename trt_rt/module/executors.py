"""The executors of one module, one for each stream that calls it, and the modes that they run in."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import ReferenceType, WeakSet, ref

from trt_rt._core.call import Executor, ExecutorPool
from trt_rt._core.io_tensor import IOTensor
from trt_rt.engine import Engine
from trt_rt.engine.contexts import ContextFactory, ContextSettings
from trt_rt.errors import ClosedError
from trt_rt.module.modes import Modes

__all__ = ["ModuleExecutors", "default_cuda_graphs", "replays_cuda_graphs", "set_default_cuda_graphs"]

_lock = threading.RLock()  # of the next two; nothing else is locked while it is held
_live: WeakSet[ModuleExecutors] = WeakSet()
_default_cuda_graphs = False


def set_default_cuda_graphs(enabled: bool) -> None:
    """Switch CUDA graphs for every module that has no setting of its own, now and later."""
    global _default_cuda_graphs
    with _lock:
        _default_cuda_graphs = enabled
        live = list(_live)
    with ExitStack() as changing:  # changes all of them, and raises what any has raised
        for executors in live:
            changing.callback(executors.change)


def default_cuda_graphs() -> bool:
    """Whether modules with no setting of their own replay CUDA graphs."""
    return _default_cuda_graphs


def replays_cuda_graphs(engine: Engine) -> bool:
    """Whether calls of any module over an engine replay CUDA graphs: of it, or of the whole program."""
    with _lock:
        live = list(_live)
    return any(each.uses_cuda_graphs or each.modes.whole_graph for each in live if each.engine is engine)


class ModuleExecutors:
    """Makes a module's executors, and changes the modes of all of them together.

    Parameters
    ----------
    engine : Engine
        What runs; kept as an attribute.
    inputs, outputs : sequence of IOTensor
        All of the engine's, in the order that calls use.
    modes : Modes
        To begin with.
    max_contexts : int
        How many streams have an executor of their own.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: Sequence[IOTensor],
        outputs: Sequence[IOTensor],
        modes: Modes,
        max_contexts: int,
    ) -> None:
        self.engine = engine
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._taken: Counter[str] = Counter()  # counts of executors that were taken out
        # Reentrant: while it is held a finalizer may drop, or a callback make, an executor.
        self._lock = threading.RLock()
        self._modes = modes
        self._contexts: ContextFactory = engine.new_context_factory(_context_settings(modes))
        # The pool goes with this, and must not keep it: a cycle would leave contexts to the collector.
        this = ref(self)
        self._made: WeakSet[Executor] = WeakSet()  # also those that are on their way into the pool
        with _lock:
            _live.add(self)  # first, so that no change of the default is missed
        self.pool = ExecutorPool(lambda: _executors_of(this)._make(), engine.device, max_contexts)

    @property
    def modes(self) -> Modes:
        """As they are now."""
        return self._modes

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether calls replay CUDA graphs: by the module's own setting, or the process's default."""
        own = self.modes.cuda_graphs
        return _default_cuda_graphs if own is None else own

    def _make(self) -> Executor:
        with self._lock:
            executor = self.engine.new_executor(self._inputs, self._outputs, self._contexts)
            self._made.add(executor)
            self._configure(executor, new_context=False)
            return executor

    def _configure(self, executor: Executor, *, new_context: bool) -> None:
        modes = self.modes
        profile = modes.optimization_profile
        executor.configure(
            buffers=modes.pre_allocated_outputs,
            max_graphs=modes.max_graphs if self.uses_cuda_graphs else 0,
            allocate_all=modes.output_allocator,
            profile=-1 if profile is None else profile,
            new_context=new_context,
        )

    def change(self, **changes: Any) -> Modes:
        """Change modes, for all executors, from their next call on.

        Parameters
        ----------
        **changes
            Fields of `Modes`.

        Returns
        -------
        Modes
            As they were.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        with self._lock:
            before = self.modes
            modes = replace(before, **changes)
            settings = _context_settings(modes)
            new_context = settings != self._contexts.settings
            self._modes = modes
            self._contexts.settings = settings
            with ExitStack() as changing:  # changes all of them, and raises what any has raised
                for executor in self._all():
                    changing.callback(partial(self._configure, executor, new_context=new_context))
            return before

    def counts(self) -> dict[str, int]:
        """How often what has happened, in all executors together."""
        with self._lock:  # up to Python 3.13 a WeakSet must not grow while it is read
            total = Counter(self._taken)
            executors = self._all()
        for executor in executors:
            total.update(executor.counts)
        return {**total, "contexts": len(executors)}

    def take(self) -> Executor | None:
        """Take the current stream's executor out of the pool for good; None if there is none.

        What it has counted so far stays in `counts`.
        """
        executor = self.pool.take()
        if executor is not None:
            with self._lock:
                self._taken.update(executor.counts)
                self._made.discard(executor)
        return executor

    def _all(self) -> list[Executor]:
        return list(self._made)


def _context_settings(modes: Modes) -> ContextSettings:
    return ContextSettings(
        shared_workspace=modes.dynamic_resources, profiler=modes.profiler, runtime=modes.runtime_settings
    )


def _executors_of(this: ReferenceType[ModuleExecutors]) -> ModuleExecutors:
    executors = this()
    if executors is None:
        raise ClosedError("the module of this executor is gone.")
    return executors
