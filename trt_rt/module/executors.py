"""The executors of one module, one for each stream that calls it, and the modes that they run in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any
from weakref import ReferenceType, ref

from trt_rt._core.call import Executor, ExecutorPool
from trt_rt._core.critical import Cell, complete, for_each
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.live_objects import LiveObjects
from trt_rt.engine import Engine
from trt_rt.engine.contexts import ContextFactory, ContextSettings
from trt_rt.engine.new_executor import new_executor
from trt_rt.errors import ClosedError
from trt_rt.module.call_observer import CallListener, CallObserver
from trt_rt.module.modes import Modes
from trt_rt.module.setting_stack import SettingStack

__all__ = ["ModuleExecutors", "default_cuda_graphs", "set_default_cuda_graphs"]

_live: LiveObjects[ModuleExecutors] = LiveObjects()
_default_cuda_graphs = False


def set_default_cuda_graphs(enabled: bool) -> None:
    """Switch CUDA graphs for every module without a setting of its own, existing or future."""
    complete(_set_default_cuda_graphs, enabled)


def _set_default_cuda_graphs(enabled: bool) -> None:
    global _default_cuda_graphs
    _default_cuda_graphs = enabled
    for_each(ModuleExecutors.refresh, _live)


def _after_fork_in_child() -> None:
    for executors in _live:
        executors.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def default_cuda_graphs() -> bool:
    """Return whether modules without a setting of their own replay CUDA graphs."""
    return _default_cuda_graphs


@dataclass(frozen=True)
class _State:
    """The modes of a module, and the stack of settings that they come from. Replaced as a whole."""

    stack: SettingStack
    modes: Modes

    @classmethod
    def of(cls, stack: SettingStack) -> _State:
        return cls(stack, Modes(**stack.values))


@dataclass(frozen=True)
class _Observation:
    """Who listens to the calls of a module, and the observer that tells them. Replaced as a whole."""

    listeners: tuple[CallListener, ...] = ()
    observer: CallObserver | None = None

    @classmethod
    def of(cls, engine: str, listeners: tuple[CallListener, ...]) -> _Observation:
        return cls(listeners, CallObserver(engine, listeners) if listeners else None)


class ModuleExecutors:
    """The executors of one module, whose modes change together.

    Parameters
    ----------
    engine : Engine
        The engine that the executors run; also an attribute.
    inputs, outputs : sequence of IOTensor
        All inputs and outputs of the engine, in the order that calls use.
    modes : Modes
        The initial modes.
    max_contexts : int
        The number of streams with an executor of their own.
    **options
        Further arguments of every `Executor`.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: Sequence[IOTensor],
        outputs: Sequence[IOTensor],
        modes: Modes,
        max_contexts: int,
        **options: Any,
    ) -> None:
        self.engine = engine
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._options = options
        self._taken: Cell[Counter[str]] = Cell(Counter())  # stats of executors that were taken out
        self._state = Cell(
            _State.of(SettingStack({field.name: getattr(modes, field.name) for field in fields(modes)}))
        )
        self._observer: Cell[_Observation] = Cell(_Observation())
        self._contexts: ContextFactory = ContextFactory(engine.handle, _context_settings(modes))
        # The pool goes with this, and must not keep it: a cycle would leave contexts to the collector.
        this = ref(self)
        self._made: LiveObjects[Executor] = LiveObjects()  # also those that are on their way into the pool
        _live.add(self)  # first, so that no change of the default is missed
        self.pool = ExecutorPool(lambda: _executors_of(this)._make(), engine.device, max_contexts)

    @property
    def modes(self) -> Modes:
        """The current modes."""
        return self._state.value.modes

    @property
    def mode_cell(self) -> Cell[Any]:
        """Holds another object whenever the modes have changed."""
        return self._state

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether calls replay CUDA graphs: by the module's own setting, or the process's default."""
        own = self.modes.cuda_graphs
        return _default_cuda_graphs if own is None else own

    def _make(self) -> Executor:
        executor = new_executor(self.engine, self._inputs, self._outputs, self._contexts, **self._options)
        self._made.add(executor)  # first, so that no change of the modes is missed
        self._configure(executor)
        return executor

    def _configure(self, executor: Executor) -> None:
        """Apply the current modes to an executor's next calls. Never waits for a running call."""
        executor.gate.defer(partial(self._configure_idle, executor))

    def _configure_idle(self, executor: Executor) -> None:
        modes = self.modes
        profile = modes.optimization_profile
        self._contexts.settings = _context_settings(modes)
        executor.configure(
            buffers=modes.pre_allocated_outputs,
            max_graphs=modes.max_graphs if self.uses_cuda_graphs else 0,
            allocate_all=modes.output_allocator,
            profile=-1 if profile is None else profile,
            context_settings=self._contexts.settings,
        )
        executor.observe(self._observer.value.observer)

    def refresh(self) -> None:
        """Apply the current modes to all executors. Never waits, and leaves correct executors alone.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        for_each(self._configure, self._made)

    def change(self, **changes: Any) -> None:
        """Change modes, for all executors, from their next call on.

        A mode that a context manager has changed stays changed until that is left.

        Parameters
        ----------
        **changes
            Fields of `Modes`.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        complete(self._change, partial(_changed, changes))

    def override(self, owner: object, changes: Mapping[str, Any]) -> None:
        """Change modes until `restore` is called with the same owner.

        Parameters
        ----------
        owner : object
            Whose changes they are.
        changes : mapping of str to object
            Fields of `Modes`.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        self._change(lambda stack: stack.entered(owner, changes))

    def restore(self, owner: object) -> None:
        """Undo `override`, also one that was cut short. Idempotent.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed; the modes are changed all the same.
        """
        self._change(lambda stack: stack.left(owner))

    def _change(self, change: Callable[[SettingStack], SettingStack]) -> None:
        def changed(state: _State) -> _State:
            stack = change(state.stack)
            return state if stack is state.stack else _State.of(stack)

        self._state.update(changed)
        self.refresh()

    @property
    def is_observed(self) -> bool:
        """Whether there are listeners."""
        return self._observer.value.observer is not None

    def observe(self, listener: CallListener) -> None:
        """Tell a listener of all calls, from the next one of each executor on, until `unobserve`.

        Raises
        ------
        ExecutionError
            As `refresh`.
        """
        self._change_listeners(lambda listeners: (*listeners, listener))

    def unobserve(self, listener: CallListener) -> None:
        """Undo `observe`, also one that was cut short. Idempotent.

        Raises
        ------
        ExecutionError
            As `refresh`.
        """
        self._change_listeners(lambda listeners: tuple(each for each in listeners if each is not listener))

    def _change_listeners(
        self, change: Callable[[tuple[CallListener, ...]], tuple[CallListener, ...]]
    ) -> None:
        self._observer.update(lambda old: _Observation.of(self.engine.name, change(old.listeners)))
        self.refresh()

    def after_fork(self) -> None:
        """Make the executors usable in a forked child; those of CUDA refuse calls there."""
        for executor in self._made:
            executor.after_fork()
            if self.engine.device.type == "cpu":
                self._configure(executor)

    def stats(self) -> dict[str, int]:
        """Return the counters of `TRTModule.stats`, summed over all executors."""
        executors = list(self._made)
        total = Counter(self._taken.value)
        for executor in executors:
            total.update(executor.stats())
        return {**total, "contexts": len(executors)}

    def take(self) -> Executor | None:
        """Take the current stream's executor out of the pool for good; None if there is none.

        Its counters so far stay in `stats`.
        """
        executor = self.pool.take()
        if executor is not None:
            stats = Counter(executor.stats())
            self._made.discard(executor)
            self._taken.update(lambda taken: _sum(taken, stats))
        return executor


def _sum(first: Counter[str], second: Counter[str]) -> Counter[str]:
    """Add stats. Unlike ``first + second`` this keeps names whose count is 0."""
    total = Counter(first)
    total.update(second)
    return total


def _changed(changes: Mapping[str, Any], stack: SettingStack) -> SettingStack:
    for name, value in changes.items():
        stack = stack.changed(name, value)
    return stack


def _context_settings(modes: Modes) -> ContextSettings:
    return ContextSettings(
        shared_workspace=modes.dynamic_resources, profiler=modes.profiler, runtime=modes.runtime_settings
    )


def _executors_of(this: ReferenceType[ModuleExecutors]) -> ModuleExecutors:
    executors = this()
    if executors is None:
        raise ClosedError("the module of this executor is gone.")
    return executors


hide_from_dynamo(globals())
