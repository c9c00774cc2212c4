"""Threads, streams, shapes, and modes that change meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.behaviours.graph_modes import Doubled
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.runtime import enable_cudagraphs
from trt_rt.runtime.pre_allocated_outputs import enable_pre_allocated_outputs

pytestmark = [pytest.mark.behaviour(21), pytest.mark.usefixtures("threads_change_often")]

_CALLERS = 12
_THREADS = 16


def _run_at_once(case, jobs: list[Callable[[], None]]) -> None:
    """Run each job on a thread and a stream of its own, all released at one moment."""
    assert len(jobs) == _THREADS
    barrier = threading.Barrier(_THREADS)

    def run(job: Callable[[], None]) -> None:
        stream = contextlib.nullcontext()
        if case.device.type == "cuda":
            stream = torch.cuda.stream(torch.cuda.Stream(case.device))
        with stream:
            barrier.wait(SECONDS_UNTIL_DEADLOCK)
            job()

    with ThreadPoolExecutor(_THREADS) as pool:
        for future in [pool.submit(run, job) for job in jobs]:
            future.result(SECONDS_UNTIL_DEADLOCK)


def _calls(case, call, factor: int, first: int) -> Callable[[], None]:
    """Calls with shapes in turn, some with the inputs of before and some with new ones."""

    def job() -> None:
        sizes = (first % 5 + 1, 8, 3)
        inputs = {n: case.example(n) for n in sizes}
        for step in range(8):
            for n in sizes:
                if step % 2:
                    inputs[n] = case.example(n)
                expected = tuple(output * factor for output in case.expected(*inputs[n]))
                case.assert_right(call(*inputs[n]), expected)

    return job


def _switches(module) -> list[Callable[[], None]]:
    """What changes how calls of a module are run, for as long as others call it."""

    def graphs() -> None:
        for turn in range(8):
            with enable_cudagraphs(module, whole_graph=False, max_graphs=1 + turn % 3):
                module.stats()

    def buffers() -> None:
        for turn in range(8):
            with enable_pre_allocated_outputs(module, buffers=1 + turn % 2):
                module.graph_inputs  # noqa: B018  # reads what other threads change

    def resources() -> None:
        for turn in range(8):
            module.executors.change(dynamic_resources=turn % 2 == 0)
        module.executors.change(dynamic_resources=False)

    def contexts() -> None:
        for _ in range(4):
            module.engine.run_without_contexts(lambda _: None)

    return [graphs, buffers, resources, contexts]


@pytest.mark.parametrize("whole", [False, True], ids=["engine", "program"])
@pytest.mark.parametrize("kind", ["two", "shape_tensor", "profiles"])
def test_everything_at_once(make, kind, whole):
    """Twelve threads call, four switch graphs, buffers, resources and contexts: every result is right.

    Every thread has a context of its own, since pre-allocated results last until the next call of theirs.
    """
    case = make(kind)
    module = case.module(max_contexts=2 * _THREADS)
    if not whole:
        jobs = [_calls(case, module, 1, first) for first in range(_CALLERS)]
        _run_at_once(case, jobs + _switches(module))
    else:
        with enable_cudagraphs(Doubled(module), whole_graph=True, max_graphs=3) as run:
            # Results that are reused would last until another thread's call.
            switches = [switch for switch in _switches(module) if switch.__name__ != "buffers"]
            jobs = [_calls(case, run, 2, first) for first in range(_CALLERS + 1)]
            _run_at_once(case, jobs + switches)
    inputs = case.example(8)
    case.assert_right(module(*inputs), case.expected(*inputs))


def test_more_threads_than_contexts(make):
    """Threads take contexts over from one another while graphs are switched."""
    case = make("two")
    module = case.module(max_contexts=3)
    graphs, _, resources, contexts = _switches(module)
    jobs = [_calls(case, module, 1, first) for first in range(_THREADS - 3)]
    _run_at_once(case, [*jobs, graphs, resources, contexts])
    assert module.stats()["contexts"] <= 3
