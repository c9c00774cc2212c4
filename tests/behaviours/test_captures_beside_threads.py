"""A capture on one thread survives what other threads do, allocations above all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from tests.behaviours.graph_modes import GRAPH_MODES, graphed
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.runtime import enable_cudagraphs

pytestmark = pytest.mark.behaviour(23)


@contextmanager
def _meanwhile(work) -> Iterator[None]:
    """Repeat `work` on another thread; it has run at least once before and once after what is done here."""
    stop, started = threading.Event(), threading.Event()

    def job():
        while not stop.is_set():
            work()
            started.set()
        work()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(job)
        try:
            assert started.wait(SECONDS_UNTIL_DEADLOCK)
            yield
        finally:
            stop.set()
            done.result(SECONDS_UNTIL_DEADLOCK)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", GRAPH_MODES)
def test_allocations_on_another_thread(make, mode):
    """Graphs of many shapes are captured while another thread allocates and gives memory back to CUDA."""
    case = make("two")

    def allocate():
        with torch.cuda.stream(torch.cuda.Stream(case.device)):
            held = [torch.empty(64 << 20, dtype=torch.uint8, device=case.device) for _ in range(2)]
            del held
        torch.cuda.empty_cache()

    inputs = [case.example(n) for n in range(1, 17)]
    with graphed(case, mode) as graphs, _meanwhile(allocate):
        for _ in range(2):
            for each in inputs:
                graphs.check(*each)
        assert graphs.captures >= len(inputs)


@pytest.mark.gpu
def test_captures_on_two_threads(make):
    """Two threads capture programs of their own at the same time."""
    case = make("two")
    barrier = threading.Barrier(4)

    def job(mode):
        with torch.cuda.stream(torch.cuda.Stream(case.device)), graphed(case, mode) as graphs:
            inputs = [case.example(n) for n in range(1, 9)]
            barrier.wait(SECONDS_UNTIL_DEADLOCK)
            for _ in range(2):
                for each in inputs:
                    graphs.check(*each)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(job, mode) for mode in GRAPH_MODES * 2]:
            done.result(SECONDS_UNTIL_DEADLOCK)


@pytest.mark.parametrize("mode", GRAPH_MODES)
def test_other_modules_meanwhile(make, mode):
    """Graphs are captured while another thread loads engines, and calls them with graphs on and off."""
    case = make("relu")

    def use():
        module = case.module()
        inputs = case.example(3)
        case.assert_right(module(*inputs), case.expected(*inputs))
        with enable_cudagraphs(module):
            case.assert_right(module(*inputs), case.expected(*inputs))

    with graphed(case, mode) as graphs, _meanwhile(use):
        for n in (*range(1, 9), *range(1, 9)):
            graphs.check(*case.example(n))
