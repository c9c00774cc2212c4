"""How many bytes of one engine's streamable weights stay on its device."""

from __future__ import annotations

from functools import partial
from typing import Any

from trt_rt._core.critical import Cell, when_free
from trt_rt.engine.context_users import ContextUsers
from trt_rt.engine.handle import EngineHandle
from trt_rt.engine.placement import current_device

__all__ = ["WeightBudget"]


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
    """

    def __init__(self, handle: EngineHandle, users: ContextUsers) -> None:
        self._handle = handle
        self._users = users
        self.cell: Cell[object] = Cell(object())

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
            self._users.run_paused(partial(self._set, budget))

    def restore(self, budget: int, *, may_wait: bool) -> None:
        """Go back to an earlier budget, unless the engine was closed. Idempotent.

        Parameters
        ----------
        budget : int
            As for `set`.
        may_wait : bool
            Whether to wait for calls of other threads. If not, one of these calls restores the budget when
            it ends. Calls of this thread always restore it when they end.
        """

        def restore() -> None:
            if not self._handle.closed:
                self.set(budget)

        when_free(restore, () if may_wait else self._users.gates())

    def _set(self, budget: int, engine: Any) -> None:
        try:
            with current_device(self._handle.device):
                self._handle.backend.set_weight_streaming_budget(engine, budget, self._handle.name)
        finally:
            self.cell.update(lambda _: object())
