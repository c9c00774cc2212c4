"""Joins requests that wait at the same time into batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batcher", "QueueFullError"]

Request = TypeVar("Request")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """More requests wait than the server allows."""


@dataclass(eq=False)
class _Waiting(Generic[Request, Result]):
    request: Request
    rows: int
    since: float
    answer: asyncio.Future[Result]


class Batcher(Generic[Request, Result]):
    """A queue of requests for one model, from which batches leave.

    A batch leaves when a slot is free, and it is full or its oldest request has waited long enough. While no
    slot is free, batches grow. Requests keep their order. One event loop uses a batcher.

    Parameters
    ----------
    run : callable
        Runs a batch, and returns a result for each of its requests.
    most_rows : int
        Of a batch. A request that has more rows leaves alone.
    most_waiting : int
        Requests in the queue; -1 for no limit.
    wait_s : float
        How long the oldest request of a batch waits for others, in seconds.
    slots : int
        Batches that may run at once.
    """

    def __init__(
        self,
        run: Callable[[list[Request]], Awaitable[Sequence[Result]]],
        *,
        most_rows: int,
        most_waiting: int,
        wait_s: float,
        slots: int,
    ) -> None:
        self._run = run
        self._most_rows = most_rows
        self._most_waiting = most_waiting
        self._wait_s = wait_s
        self._free = slots
        self._queue: deque[_Waiting[Request, Result]] = deque()
        self._rows = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, request: Request, rows: int) -> Result:
        """Return the result of a request. If the caller is cancelled first, the request leaves the queue.

        Raises
        ------
        QueueFullError
            Too many requests wait.
        """
        if 0 <= self._most_waiting <= len(self._queue):
            raise QueueFullError(f"{len(self._queue)} requests wait already.")
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Request, Result] = _Waiting(request, rows, loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._rows += rows
        self._start_batches(loop)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
                self._rows -= rows
            raise

    def _start_batches(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start what may start now, and come back when the next batch has waited long enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._free and self._queue:
            due = self._queue[0].since + self._wait_s
            if self._rows < self._most_rows and loop.time() < due:
                self._timer = loop.call_at(due, self._start_batches, loop)
                return
            if batch := self._next_batch():
                self._free -= 1
                # In a context of its own: Ray Serve cancels the calls that were made in the context of a
                # request when its client hangs up, and a batch has requests of others.
                task = Context().run(loop.create_task, self._run_batch(batch))
                self._running.add(task)  # the loop itself keeps weak references
                task.add_done_callback(self._running.discard)

    def _next_batch(self) -> list[_Waiting[Request, Result]]:
        """Take the oldest requests from the queue; none if all of them have been cancelled."""
        batch: list[_Waiting[Request, Result]] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue[0].rows <= self._most_rows):
            waiting = self._queue.popleft()
            self._rows -= waiting.rows
            if not waiting.answer.done():
                batch.append(waiting)
                rows += waiting.rows
        return batch

    async def _run_batch(self, batch: list[_Waiting[Request, Result]]) -> None:
        try:
            results = await self._run([waiting.request for waiting in batch])
        except Exception as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
        else:
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(result)
        finally:
            self._free += 1
            self._start_batches(asyncio.get_running_loop())
