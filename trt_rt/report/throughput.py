"""Calls a second of several threads, each on a stream of its own, and how long their calls take."""

from __future__ import annotations

import gc
import threading
import time
from array import array
from collections.abc import Callable, Sequence

import torch

from trt_rt._core.garbage_collection import without_garbage_collection
from trt_rt._core.timed_calls import clock_cost, time_calls
from trt_rt.report.measuring import stream_to_wait_for, warm_up
from trt_rt.report.modes import Call
from trt_rt.report.result import Concurrency
from trt_rt.report.samples import Samples

__all__ = ["measure_throughput"]

_CALLS_AT_A_TIME = 20
_ROUNDS = 3


def measure_throughput(
    new_call: Callable[[], Call],
    shapes: str,
    device: torch.device,
    levels: Sequence[int],
    seconds: float,
) -> tuple[Concurrency, ...]:
    """Measure one module at several numbers of threads.

    Parameters
    ----------
    new_call : callable
        Is called by each thread, and returns the call that the thread makes. All calls may be of one module.
    shapes : str
        Label of the workload.
    device : torch.device
        Where the work runs. On CUDA each thread has a stream of its own.
    levels : sequence of int
        Numbers of threads.
    seconds : float
        For each level. The levels take turns, so that a slow moment of the machine hits all of them.

    Returns
    -------
    tuple of Concurrency
        In the order of `levels`. Every thread waits for its call before it makes the next one.

    Raises
    ------
    Exception
        What a thread's call raised.
    """
    cost = clock_cost()
    samples = [Samples(cost) for _ in levels]
    rates: list[list[float]] = [[] for _ in levels]

    def take_turns() -> None:
        for _ in range(_ROUNDS):
            for index, level in enumerate(levels):
                times, rate = _run_level(new_call, device, level, seconds / _ROUNDS)
                samples[index].add(times)
                rates[index].append(rate)

    gc.collect()
    without_garbage_collection(take_turns)
    return tuple(
        Concurrency(level, shapes, sorted(rate)[len(rate) // 2], sample.times())
        for level, rate, sample in zip(levels, rates, samples, strict=True)
    )


def _run_level(
    new_call: Callable[[], Call], device: torch.device, count: int, seconds: float
) -> tuple[array[int], float]:
    """Return the times of all calls, and the calls a second."""
    callers = [_Caller(new_call, device, seconds) for _ in range(count)]
    start = threading.Barrier(count)
    threads = [threading.Thread(target=caller.run, args=(start,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for caller in callers:
        if caller.error is not None:
            raise caller.error
    times = array("q")
    for caller in callers:
        times += caller.times
    # Each thread's own rate: threads do not end at the same moment.
    return times, sum(len(caller.times) / caller.seconds for caller in callers)


class _Caller:
    """One thread: calls until the time is over."""

    def __init__(self, new_call: Callable[[], Call], device: torch.device, seconds: float) -> None:
        self._new_call = new_call
        self._device = device
        self._limit = seconds
        self.times: array[int] = array("q")
        self.seconds = 0.0
        self.error: BaseException | None = None

    def run(self, start: threading.Barrier) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
                torch.cuda.set_stream(torch.cuda.Stream(self._device))
            call = self._new_call()
            stream = stream_to_wait_for(self._device)
            warm_up(call, stream, 0.2)
            start.wait()
            self._call_until_the_end(call, stream)
        except BaseException as error:
            self.error = error
            start.abort()

    def _call_until_the_end(self, call: Call, stream: int | None) -> None:
        keywords = dict(call.keywords or {})
        begin = time.perf_counter()
        # At least once: on a busy machine the time may be over when the thread first runs.
        while self.seconds < self._limit or not self.times:
            self.times += time_calls(call.function, _CALLS_AT_A_TIME, call.arguments, keywords, stream)[1]
            self.seconds = time.perf_counter() - begin
