"""How many bytes of one engine's streamable weights stay on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from trt_rt._core.critical import Cell, Gate, run_holding
from trt_rt.engine.context_users import ContextUsers
from trt_rt.engine.handle import EngineHandle
from trt_rt.engine.placement import current_device

__all__ = ["WeightBudget", "holding_budgets"]

Result = TypeVar("Result")


def holding_budgets(budgets: Iterable[WeightBudget], function: Callable[[], Result]) -> Result:
    """Call a function while no other thread changes some budgets, so that they change together.

    Raises
    ------
    ExecutionError
        If a call of this thread is under way.
    """
    # In one order, so that two threads never wait for each other.
    ordered = sorted(budgets, key=id)
    for budget in ordered:
        budget.refuse_own_call()
    return run_holding([budget.gate for budget in ordered], function)


class WeightBudget:
    """The weight streaming budget of one engine.

    Parameters
    ----------
    handle : EngineHandle
        The engine.
    users : ContextUsers
        The users of the engine's contexts, which wait while the budget changes.

    Attributes
    ----------
    cell : Cell
        Holds another object whenever the budget has changed.
    gate : Gate
        A thread holds it while it changes the budget.
    """

    def __init__(self, handle: EngineHandle, users: ContextUsers) -> None:
        self._handle = handle
        self._users = users
        self.cell: Cell[object] = Cell(object())
        self.gate = Gate()

    @property
    def value(self) -> int:
        """The bytes of streamable weights that stay on the device.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return int(self._handle.engine.weight_streaming_budget_v2)

    @property
    def streams(self) -> bool:
        """Whether weights are streamed: the budget is less than the size of all streamable weights.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        return self._handle.streams_weights

    def automatic(self) -> int:
        """Return the budget in bytes that TensorRT proposes for the memory that is free on the device now.

        Raises
        ------
        ClosedError
            If the engine was closed.
        """
        with current_device(self._handle.device):
            return int(self._handle.engine.get_weight_streaming_automatic_budget())

    def set(self, budget: int) -> None:
        """Change the budget, while no call runs.

        Parameters
        ----------
        budget : int
            Bytes, from 0 to the size of all streamable weights.

        Raises
        ------
        ClosedError
            If the engine was closed.
        ExecutionError
            If TensorRT refuses, or CUDA reports that work in flight has failed. The budget is unchanged.
        """
        if budget != self.value:
            self.refuse_own_call()
            self.gate.run(self._set_alone, budget)

    def refuse_own_call(self) -> None:
        """Raise if a call of this thread is under way, which a change of the budget would wait for.

        Raises
        ------
        ExecutionError
        """
        self._users.refuse_own_call()

    def gates(self) -> list[Gate]:
        """Return the gates that a change of the budget waits for."""
        return [self.gate, *self._users.gates()]

    def _set_alone(self, budget: int) -> None:
        if budget != self.value:
            self._users.run_paused(partial(self._set, budget))

    def _set(self, budget: int, engine: Any) -> None:
        try:
            with current_device(self._handle.device):
                self._handle.backend.set_weight_streaming_budget(engine, budget, self._handle.name)
        finally:
            self.cell.update(lambda _: object())
