"""The users of one engine's execution contexts, which are paused and closed together."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from trt_rt.engine.deferred_destruction import run_deferred_destructors

__all__ = ["ContextUser", "ContextUsers"]


class ContextUser(Protocol):
    """An owner of execution contexts: an `Executor`, a captured program, or `OutputShapes`."""

    def pause(self) -> None:
        """Wait for work, drop every context, and keep calls out until the same thread calls `resume`."""

    def resume(self) -> None:
        """Let calls in again."""

    def close(self) -> None:
        """Wait for work and drop every context for good."""


class ContextUsers:
    """The users of one engine's execution contexts, known by weak references."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may close the engine while the lock is held.
        self._lock = threading.RLock()
        self._users: weakref.WeakSet[ContextUser] = weakref.WeakSet()

    def add(self, user: ContextUser) -> None:
        """Add a user."""
        with self._lock:
            self._users.add(user)

    def replace(self, old: ContextUser, new: ContextUser) -> None:
        """Let `new` be paused and closed in place of `old`, whose contexts it has taken over."""
        with self._lock:
            self._users.discard(old)
            self._users.add(new)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A context in which no other thread adds, replaces, pauses or closes users."""
        with self._lock:
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context in which the engine has no execution contexts; calls wait until its end.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        with self._lock, ExitStack() as resuming:
            for user in list(self._users):
                user.pause()
                resuming.callback(user.resume)
            run_deferred_destructors()
            yield

    def close(self) -> None:
        """Close every user, and raise the errors of those that raised any.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        with self._lock:
            try:
                with ExitStack() as closing:  # closes all of them before it raises
                    for user in list(self._users):
                        closing.callback(user.close)
            finally:
                run_deferred_destructors()
