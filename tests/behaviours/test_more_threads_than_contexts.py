"""Behaviours 2 and 21: pre-allocated results last until the next call of the same thread or stream."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs

GRAPHS = [pytest.param(False, id="enqueued"), pytest.param(True, id="cuda_graph")]


class Caller:
    """A thread of its own, on a GPU with a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, module: Any, *inputs: torch.Tensor) -> Any:
        """Call a module there, and wait until the result is there."""
        return self._thread.submit(self._call, module, inputs).result()

    def _call(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> Any:
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            if self._stream is not None:
                self._stream.wait_stream(torch.cuda.default_stream(self._stream.device))
            result = module(*inputs)
        if self._stream is not None:
            self._stream.synchronize()
        return result

    def close(self) -> None:
        self._thread.shutdown()


@contextmanager
def callers(count: int, device: torch.device) -> Iterator[list[Caller]]:
    made = [Caller(device) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.close()


@pytest.mark.parametrize("with_graphs", GRAPHS)
@pytest.mark.parametrize("contexts", [1, 2])
def test_results_outlive_calls_of_other_threads(make, contexts, with_graphs):
    """With fewer contexts than threads a result is still not overwritten by another thread's call."""
    case = make("relu")
    module = case.module(max_contexts=contexts)
    graphs = enable_cudagraphs(module, whole_graph=False) if with_graphs else nullcontext()
    with enable_pre_allocated_outputs(module), graphs, callers(4, case.device) as threads:
        for _ in range(3):
            inputs = [case.example(2) for _ in threads]
            results = [call(module, *each) for call, each in zip(threads, inputs, strict=True)]
            for result, each in zip(results, inputs, strict=True):
                case.assert_right(result, case.expected(*each))


def test_one_thread_reuses_its_memory(make):
    """A thread that keeps its context to itself writes into the same memory at every call."""
    case = make("relu")
    module = case.module(max_contexts=2)
    (x,) = case.example(2)
    with enable_pre_allocated_outputs(module), callers(2, case.device) as threads:
        for call in threads:
            assert len({call(module, x).data_ptr() for _ in range(4)}) == 1
