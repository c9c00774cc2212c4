"""Requests that wait at the same time, and the batches in which they leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from trt_rt.integrations.ray_serve.batcher import Batcher, QueueFullError

_FOREVER = 3600.0
_client = ContextVar("_client", default="none")


class _Runs:
    """Batches that are under way, each until the test lets it end."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self._ends: list[asyncio.Future[None]] = []

    async def __call__(self, batch: list[str]) -> list[str]:
        self.batches.append(batch)
        self._ends.append(asyncio.get_running_loop().create_future())
        await self._ends[-1]
        return [request.upper() for request in batch]

    def end(self, number: int) -> None:
        self._ends[number].set_result(None)


def _batcher(run: Callable[[list[str]], Awaitable[list[str]]], **settings: float) -> Batcher[str, str]:
    defaults = {"most_rows": 4, "most_waiting": -1, "wait_s": 0.0, "slots": 1}
    return Batcher(run, **(defaults | settings))  # type: ignore[arg-type]


async def _settled() -> None:
    """Let every task go on as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_full_batch_leaves_at_once_and_in_order() -> None:
    async def scenario() -> None:
        runs = _Runs()
        batcher = _batcher(runs, wait_s=_FOREVER)
        asked = [asyncio.create_task(batcher.submit(text, 2)) for text in ("a", "b", "c")]
        await _settled()
        assert runs.batches == [["a", "b"]]  # four rows; "c" waits for others
        runs.end(0)
        assert await asyncio.gather(*asked[:2]) == ["A", "B"]
        assert not asked[2].done()
        asked[2].cancel()

    asyncio.run(scenario())


def test_a_batch_that_is_not_full_leaves_when_its_oldest_request_has_waited() -> None:
    async def scenario() -> None:
        async def run(batch: list[str]) -> list[str]:
            return [f"{request} of {len(batch)}" for request in batch]

        batcher = _batcher(run, wait_s=0.01)
        assert await asyncio.gather(batcher.submit("a", 1), batcher.submit("b", 1)) == ["a of 2", "b of 2"]

    asyncio.run(scenario())


def test_batches_grow_while_no_slot_is_free() -> None:
    async def scenario() -> None:
        runs = _Runs()
        batcher = _batcher(runs)
        asked = [asyncio.create_task(batcher.submit(text, 1)) for text in "abcdef"]
        await _settled()
        assert runs.batches == [["a"]]  # it waits for nobody, and has the only slot
        runs.end(0)
        await _settled()
        assert runs.batches[1:] == [["b", "c", "d", "e"]]
        runs.end(1)
        await _settled()
        runs.end(2)
        assert await asyncio.gather(*asked) == list("ABCDEF")

    asyncio.run(scenario())


def test_a_request_larger_than_a_batch_leaves_alone() -> None:
    async def scenario() -> None:
        runs = _Runs()
        batcher = _batcher(runs, slots=3)
        for text, rows in (("a", 9), ("b", 1), ("c", 9)):
            asyncio.create_task(batcher.submit(text, rows))  # noqa: RUF006
        await _settled()
        assert runs.batches == [["a"], ["b"], ["c"]]
        for number in range(3):
            runs.end(number)
        await _settled()

    asyncio.run(scenario())


def test_a_request_whose_client_has_gone_is_not_run() -> None:
    async def scenario() -> None:
        runs = _Runs()
        batcher = _batcher(runs)
        first, gone, last = [asyncio.create_task(batcher.submit(text, 1)) for text in "abc"]
        await _settled()
        gone.cancel()
        await _settled()
        runs.end(0)
        await _settled()
        assert runs.batches == [["a"], ["c"]]
        runs.end(1)
        assert await asyncio.gather(first, last) == ["A", "C"]

    asyncio.run(scenario())


def test_a_batch_goes_on_when_one_of_its_clients_has_gone() -> None:
    async def scenario() -> None:
        runs = _Runs()
        batcher = _batcher(runs, wait_s=_FOREVER)
        gone, other = [asyncio.create_task(batcher.submit(text, 2)) for text in "ab"]
        await _settled()
        gone.cancel()
        await _settled()
        runs.end(0)
        assert await other == "B"

    asyncio.run(scenario())


def test_a_batch_runs_in_the_context_of_no_request() -> None:
    async def scenario() -> None:
        async def run(batch: list[str]) -> list[str]:
            return [_client.get() for _ in batch]

        _client.set("the first one")
        assert await _batcher(run).submit("a", 1) == "none"

    asyncio.run(scenario())


def test_the_queue_has_a_limit() -> None:
    async def scenario() -> None:
        runs = _Runs()
        batcher = _batcher(runs, most_waiting=1)
        running, waiting = [asyncio.create_task(batcher.submit(text, 1)) for text in "ab"]
        await _settled()
        with pytest.raises(QueueFullError, match="1 requests wait already"):
            await batcher.submit("c", 1)
        runs.end(0)
        await _settled()
        runs.end(1)
        assert await asyncio.gather(running, waiting) == ["A", "B"]

    asyncio.run(scenario())


def test_a_request_whose_client_has_gone_takes_no_place_in_the_queue() -> None:
    async def scenario() -> None:
        runs = _Runs()
        batcher = _batcher(runs, most_waiting=1)
        running, gone = [asyncio.create_task(batcher.submit(text, 3)) for text in "ab"]
        await _settled()
        gone.cancel()
        await _settled()
        last = asyncio.create_task(batcher.submit("c", 1))
        await _settled()
        runs.end(0)
        await _settled()
        runs.end(1)
        assert await asyncio.gather(running, last) == ["A", "C"]

    asyncio.run(scenario())


def test_a_batch_that_fails_gives_each_request_the_error_and_frees_its_slot() -> None:
    async def scenario() -> None:
        async def run(batch: list[str]) -> list[str]:
            if "bad" in batch:
                raise RuntimeError("no")
            return batch

        batcher = _batcher(run)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no"):
                await batcher.submit("bad", 1)
        assert await batcher.submit("good", 1) == "good"

    asyncio.run(scenario())
