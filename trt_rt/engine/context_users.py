"""The users of one engine's execution contexts, which are paused and closed together."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any, Protocol, TypeVar

from trt_rt._core.critical import Gate, for_each, run_holding
from trt_rt._core.live_objects import LiveObjects
from trt_rt.engine.deferred_destruction import run_deferred_destructors
from trt_rt.engine.handle import EngineHandle

__all__ = ["ContextUser", "ContextUsers"]

Result = TypeVar("Result")


class ContextUser(Protocol):
    """An owner of execution contexts: an `Executor`, a captured program, or `OutputShapes`."""

    @property
    def gate(self) -> Gate:
        """The lock that a call holds. While another thread holds it, calls wait."""

    def drop_contexts(self) -> None:
        """Wait for work, and drop every context. The caller holds the gate."""

    def close(self) -> None:
        """Wait for work, drop every context, and make no other."""


class ContextUsers:
    """The users of one engine's execution contexts, known by weak references.

    Parameters
    ----------
    handle : EngineHandle
        The engine.

    Attributes
    ----------
    gate : Gate
        A thread holds it while it adds, replaces, pauses or closes users.
    """

    def __init__(self, handle: EngineHandle) -> None:
        self._handle = handle
        self.gate = Gate()
        self._users: LiveObjects[ContextUser] = LiveObjects()

    def add(self, user: ContextUser) -> None:
        """Add a user."""
        self._users.add(user)

    def replace(self, old: ContextUser, new: ContextUser) -> None:
        """Replace `old` by `new`, which has taken over its contexts."""
        self._users.add(new)
        self._users.discard(old)

    def gates(self) -> list[Gate]:
        """The gates that `run_paused` and `close` wait for: its own, and those of all users."""
        return [self.gate, *[user.gate for user in self._users]]

    def refuse_own_call(self) -> None:
        """Raise if a call of this thread is under way: it would wait for itself.

        Ask before waiting for a gate that other threads hold while they wait for calls: such a thread would
        wait for this one.

        Raises
        ------
        ExecutionError
        """
        for user in self._users:
            if user.gate.is_mine:
                run_holding([user.gate], bool)  # raises with the gate's own words

    def run_paused(self, function: Callable[[Any], Result]) -> Result:
        """Call a function with TensorRT's engine while the engine has no execution contexts, and calls wait.

        Raises
        ------
        ClosedError
            If the engine was closed.
        ExecutionError
            If CUDA reports that work in flight has failed, or if a call of this thread is under way.
        """
        self.refuse_own_call()
        return self.gate.run(self._run_paused, function)

    def _run_paused(self, function: Callable[[Any], Result]) -> Result:
        engine = self._handle.engine
        users = list(self._users)

        def run_alone() -> Result:
            for user in users:
                user.drop_contexts()
            run_deferred_destructors()
            return function(engine)

        return run_holding([user.gate for user in users], run_alone)

    def close(self) -> None:
        """Close every user. The caller holds the gate.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        try:
            for_each(methodcaller("close"), self._users)
        finally:
            run_deferred_destructors()
