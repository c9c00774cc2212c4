"""Programs that are run as one graph, called by several threads and on several streams."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.capture.programs import Program, batch
from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import TRTModule
from trt_rt.runtime import WholeGraph, enable_cudagraphs


def test_threads_share_a_program(device: str) -> None:
    barrier = threading.Barrier(6)

    def job(run: Any) -> None:
        stream = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else torch.no_grad()
        with stream:
            barrier.wait(SECONDS_UNTIL_DEADLOCK)
            held = []
            for step in range(20):
                x = batch(device, 1 + step % 3)
                held.append((run(x), eager_affine(x) * 2))
            for result, expected in held:
                torch.testing.assert_close(result, expected)

    with enable_cudagraphs(Program(device), whole_graph=True) as run, ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(job, run) for _ in range(6)]:
            done.result(SECONDS_UNTIL_DEADLOCK)


def test_another_threads_call_while_a_hook_is_added() -> None:
    """PyTorch adds a hook in two steps, and a thread may call the engine between them."""
    program = Program("cpu")
    x = batch("cpu")
    results: list[torch.Tensor] = []

    class AddsSlowly(OrderedDict[int, Any]):
        def __setitem__(self, key: int, hook: Any) -> None:
            super().__setitem__(key, hook)
            with ThreadPoolExecutor(1) as other:
                results.append(other.submit(program.engine, x).result())

    program.engine._forward_pre_hooks = AddsSlowly()
    with enable_cudagraphs(program, whole_graph=True) as run:
        torch.testing.assert_close(run(x), eager_affine(x) * 2)
    assert results
    torch.testing.assert_close(results[0], eager_affine(x))


@pytest.mark.gpu
def test_more_streams_than_contexts_while_a_program_is_captured() -> None:
    program = Program("cuda")
    program.engine = TRTModule(plans.affine(device="cuda"), device="cuda", max_contexts=1)
    stop = threading.Event()

    def use() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            while not stop.is_set():
                x = batch("cuda")
                torch.testing.assert_close(program.engine(x), eager_affine(x))

    with enable_cudagraphs(program, whole_graph=True) as run, ThreadPoolExecutor(2) as pool:
        others = [pool.submit(use) for _ in range(2)]
        try:
            for step in range(60):
                x = batch("cuda", 1 + step % 8)
                torch.testing.assert_close(run(x), eager_affine(x) * 2)
        finally:
            stop.set()
        for other in others:
            other.result(SECONDS_UNTIL_DEADLOCK)


@pytest.mark.gpu
def test_calls_from_two_streams_follow_one_another() -> None:
    streams = [torch.cuda.Stream(), torch.cuda.default_stream()]
    with enable_cudagraphs(Program("cuda"), whole_graph=True) as run:
        held = []
        for step in range(40):
            with torch.cuda.stream(streams[step % 2]):
                x = batch("cuda")
                held.append((run(x), eager_affine(x) * 2))
        torch.cuda.synchronize()
        for result, expected in held:
            torch.testing.assert_close(result, expected)


@pytest.mark.gpu
def test_a_new_thread_whose_first_work_is_a_replay() -> None:
    x, stream = batch("cuda"), torch.cuda.Stream()
    results = []

    def call(run: WholeGraph) -> None:
        torch.cuda.set_stream(stream)
        results.append(run(*(run.graph_inputs or ())))

    with enable_cudagraphs(Program("cuda"), whole_graph=True) as run:
        assert isinstance(run, WholeGraph)
        with torch.cuda.stream(stream):
            run(x)
        stream.synchronize()
        thread = threading.Thread(target=call, args=(run,))
        thread.start()
        thread.join()
        stream.synchronize()
    torch.testing.assert_close(results[0], eager_affine(x) * 2)
