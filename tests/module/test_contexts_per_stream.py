"""Each stream that calls a module has a context of its own, up to a limit; on a CPU each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import trt_rt
from tests.reference import plans
from tests.reference.plans import eager_affine


class Together:
    """Threads that are alive at the same time, and take turns."""

    def __init__(self, count: int) -> None:
        self.tasks: list[Callable[[], Any] | None] = [None] * count
        self.go = [threading.Semaphore(0) for _ in range(count)]
        self.done = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self, index: int) -> None:
        while True:
            self.go[index].acquire()
            task = self.tasks[index]
            if task is None:
                return
            try:
                task()
            except BaseException as error:
                self.errors.append(error)
            self.done.release()

    def call(self, index: int, task: Callable[[], Any]) -> None:
        """Run `task` in a thread, wait for it, and raise what it raises."""
        self.tasks[index] = task
        self.go[index].release()
        self.done.acquire()
        if self.errors:
            raise self.errors.pop()

    def stop(self) -> None:
        for index, semaphore in enumerate(self.go):
            self.tasks[index] = None
            semaphore.release()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def together() -> Iterator[Together]:
    made = Together(4)
    yield made
    made.stop()


def check(module: trt_rt.TRTModule, size: int) -> None:
    x = torch.randn(size, 7)
    torch.testing.assert_close(module(x), eager_affine(x))


def test_a_thread_has_a_context_of_its_own(together: Together) -> None:
    module = trt_rt.TRTModule(plans.affine())
    assert module.stats()["contexts"] == 1
    for _ in range(3):
        for index in range(4):
            together.call(index, lambda index=index: check(module, index + 1))
    assert module.stats()["contexts"] == 4
    # Each thread kept its shapes: only its first call was one with other shapes than the call before.
    assert module.stats()["shape_changes"] == 4


def test_the_context_used_least_recently_is_taken_over(together: Together) -> None:
    module = trt_rt.TRTModule(plans.affine(), max_contexts=2)
    for index in (0, 1, 0, 2, 0):  # 2 takes over from 1, and 0 keeps its own
        together.call(index, lambda index=index: check(module, index + 1))
    stats = module.stats()
    assert stats["contexts"] == 2
    assert stats["shape_changes"] == 3


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("graphs", [False, True])
def test_more_threads_than_contexts_are_right(together: Together, limit: int, graphs: bool) -> None:
    module = trt_rt.TRTModule(plans.affine(), max_contexts=limit)
    module.executors.change(cuda_graphs=graphs)
    for turn in range(12):
        together.call(turn % 4, lambda turn=turn: check(module, 1 + turn % 5))
    assert module.stats()["contexts"] == limit
    assert module.stats()["calls"] == 12


def test_modes_hold_for_contexts_made_later(together: Together) -> None:
    module = trt_rt.TRTModule(plans.affine())
    module.set_pre_allocated_outputs(True)
    x = torch.randn(3, 7)

    def same_memory() -> None:
        assert module(x).data_ptr() == module(x).data_ptr()

    for index in range(4):
        together.call(index, same_memory)


def test_pre_allocated_outputs_belong_to_a_thread(together: Together) -> None:
    """A result is valid until the next call of the same thread; another's call does not touch it."""
    module = trt_rt.TRTModule(plans.affine())
    module.set_pre_allocated_outputs(True)
    x = torch.randn(3, 7)
    result = module(x)
    together.call(0, lambda: check(module, 3))
    torch.testing.assert_close(result, eager_affine(x))


@pytest.mark.parametrize("graphs", [False, True])
def test_a_bound_call_may_be_called_from_another_thread(together: Together, graphs: bool) -> None:
    module = trt_rt.TRTModule(plans.affine())
    module.executors.change(cuda_graphs=graphs)
    x = torch.randn(3, 7)
    bound = module.bind(x)
    for _ in range(3):
        x.normal_()
        together.call(0, lambda: torch.testing.assert_close(bound(), eager_affine(x)))
        check(module, 5)
        torch.testing.assert_close(bound(), eager_affine(x))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_module_needs_a_context(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_contexts={limit}: the number of execution contexts"):
        trt_rt.TRTModule(plans.affine(), max_contexts=limit)


def test_a_closed_engine_is_closed_for_new_threads_too(together: Together) -> None:
    module = trt_rt.TRTModule(plans.affine())
    check(module, 3)
    module.engine.close()
    with pytest.raises(trt_rt.ClosedError, match="was closed"):
        together.call(0, lambda: check(module, 3))
