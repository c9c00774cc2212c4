"""The control of weight streaming: some weights stay in host memory and are copied in every call."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, SupportsIndex
from weakref import WeakKeyDictionary

import torch
from torch.export import ExportedProgram

from trt_rt._core.critical import Cell, Scope, complete, for_each, when_free
from trt_rt.engine import Engine
from trt_rt.engine.budget_shares import budget_shares
from trt_rt.engine.weight_budget import holding_budgets
from trt_rt.errors import BackendError, SettingError
from trt_rt.module.find_engines import as_module, find_engines
from trt_rt.module.setting_stack import SettingStack
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["WeightStreaming", "weight_streaming"]

_LARGEST_BUDGET = 2**63 - 1

_BUDGET = "budget"
_stacks: WeakKeyDictionary[Engine, Cell[SettingStack]] = WeakKeyDictionary()


@takes_compiled_module
def weight_streaming(module: torch.nn.Module | ExportedProgram) -> WeightStreaming:
    """Choose how many bytes of a module's weights stay on the device.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or a tree of modules or a program with some. Engines that were not built for weight
        streaming do not change. An engine that several modules share counts once and changes for all of them.

    Returns
    -------
    WeightStreaming
        A context manager, which can be called in place of `module`. Leaving it restores the budgets that were
        set at entry.

    Raises
    ------
    TypeError
        `module` is neither a module nor a program.
    ValueError
        There is no engine in `module`.
    BackendError
        No engine in `module` was built for weight streaming.
    ClosedError
        An engine was closed.

    Examples
    --------
    >>> with weight_streaming(module) as streaming:
    ...     streaming.device_budget = streaming.total_device_budget // 2
    ...     y = streaming(x)
    """
    return WeightStreaming(module)


class WeightStreaming(Scope["WeightStreaming"]):
    """The weight streaming budget of a module's engines; `weight_streaming` makes it."""

    def __init__(self, module: torch.nn.Module | ExportedProgram) -> None:
        self._module = as_module(module)
        sizes = {part.engine: part.engine.streamable_weights_size for part in find_engines(self._module)}
        # In the order of the tree, each engine once.
        self._sizes = {engine: size for engine, size in sizes.items() if size > 0}
        if not self._sizes:
            names = ", ".join(repr(engine.name) for engine in sizes)
            raise BackendError(
                f"engine {names} was not built for weight streaming, so all weights stay on the device. "
                "Build it with BuilderFlag.WEIGHT_STREAMING (reference backend: streamable_weights=True; "
                "Torch-TensorRT: enable_weight_streaming=True)."
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self._module(*args, **kwargs)

    def _new_entry(self) -> _Entry:
        return _Entry(self, self._sizes)

    @property
    def total_device_budget(self) -> int:
        """The bytes of all weights that can be streamed. With this budget no weight is streamed."""
        return sum(self._sizes.values())

    @property
    def device_budget(self) -> int:
        """The bytes of these weights that stay on the device. The others are copied there in every call.

        Setting it divides the bytes among the engines in proportion to their streamable weights. The shares
        sum to the budget exactly. A number above `total_device_budget` means the whole budget.

        Setting it waits for running calls and drops execution contexts and CUDA graphs, and the next call
        makes new ones. Modes, profiles, allocators and profilers stay. While weights are streamed, every call
        waits for the device, and runs without a CUDA graph.

        Raises
        ------
        TypeError
            The new budget is not an integer.
        ValueError
            The new budget is less than 0 or more than 2**63 - 1.
        ExecutionError
            TensorRT refuses the budget, or CUDA reports that work in flight has failed. After any error the
            earlier budgets are in force.
        ClosedError
            An engine was closed.
        """
        return sum(engine.weight_streaming_budget for engine in self._sizes)

    @device_budget.setter
    def device_budget(self, budget: SupportsIndex) -> None:
        wanted = min(_checked(budget), self.total_device_budget)
        shares = dict(zip(self._sizes, budget_shares(wanted, list(self._sizes.values())), strict=True))
        holding_budgets((engine.weight_budget for engine in shares), partial(self._set_or_go_back, shares))

    def _set_or_go_back(self, shares: Mapping[Engine, int]) -> None:
        before = {engine: engine.weight_streaming_budget for engine in self._sizes}
        try:
            self._set_all(shares)
        except BaseException:
            complete(
                self._set_all, {engine: budget for engine, budget in before.items() if not engine.closed}
            )
            raise

    def get_automatic_weight_streaming_budget(self) -> int:
        """Return the budget that TensorRT proposes for the memory that is free on the device now.

        Returns
        -------
        int
            A number of bytes from 0 to `total_device_budget`, for `device_budget`. For several engines on one
            device, each proposal counts the same free memory.

        Raises
        ------
        ClosedError
            An engine was closed.
        """
        return sum(min(engine.weight_budget.automatic(), size) for engine, size in self._sizes.items())

    def _set_all(self, budgets: Mapping[Engine, int]) -> None:
        for engine, budget in budgets.items():
            engine.set_weight_streaming_budget(budget)
            _stack_of(engine).update(partial(_with_budget, budget))


class _Entry:
    """One time that a `WeightStreaming` is entered."""

    def __init__(self, streaming: WeightStreaming, engines: Iterable[Engine]) -> None:
        self._streaming = streaming
        self._engines = tuple(engines)
        self._budgets = [engine.weight_budget for engine in self._engines]

    def begin(self) -> WeightStreaming:
        """Save the budgets."""
        holding_budgets(self._budgets, self._enter_all)
        return self._streaming

    def _enter_all(self) -> None:
        for engine in self._engines:
            _stack_of(engine).update(partial(self._enter, engine.weight_streaming_budget))

    def _enter(self, budget: int, stack: SettingStack) -> SettingStack:
        found = {_BUDGET: budget}
        return (stack if stack.over else SettingStack(found)).entered(self, found)

    def end(self, may_wait: bool) -> None:
        """Restore the budgets: now, or when a call of this thread has ended, which they would wait for."""
        gates = () if may_wait else [gate for budget in self._budgets for gate in budget.gates()]
        when_free(partial(holding_budgets, self._budgets, self._end_all), gates)

    def _end_all(self) -> None:
        for_each(self._end_one, self._engines)

    def _end_one(self, engine: Engine) -> None:
        cell = _stack_of(engine)
        stack = cell.value
        if stack.over and stack.over[-1][0] is self and not engine.closed:
            engine.weight_budget.set(stack.left(self).values[_BUDGET])
        # Last: if an interrupt cuts this short, it is called again.
        cell.update(lambda stack: stack.left(self))


def _with_budget(budget: int, stack: SettingStack) -> SettingStack:
    return stack.changed(_BUDGET, budget)


def _stack_of(engine: Engine) -> Cell[SettingStack]:
    return _stacks.setdefault(engine, Cell(SettingStack({})))


def _checked(budget: Any) -> int:
    allowed = (
        "device_budget takes whole bytes, from 0 (stream all weights) to total_device_budget (stream none)"
    )
    if isinstance(budget, bool):
        raise TypeError(f"{allowed}, not {budget!r}.")
    try:
        size = operator.index(budget)
    except TypeError:
        hint = f"; round it: int({budget!r})" if isinstance(budget, float) else ""
        raise TypeError(f"{allowed}, not {type(budget).__name__} {budget!r}{hint}.") from None
    if not 0 <= size <= _LARGEST_BUDGET:
        raise SettingError(f"{allowed}, not {size}.")
    return size
