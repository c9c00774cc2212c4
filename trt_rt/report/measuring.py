"""The measurement of single calls: warm up, then rounds in which all cases take turns."""

from __future__ import annotations

import gc
import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from trt_rt._core.garbage_collection import without_garbage_collection
from trt_rt._core.timed_calls import clock_cost, time_calls
from trt_rt.report.modes import Call
from trt_rt.report.result import Case
from trt_rt.report.samples import Samples

__all__ = ["Measurement", "PreparedCase", "Timing", "stream_to_wait_for", "warm_up"]

_ROUND_SECONDS = 0.005
"""A round of one case is short, so that a slow moment of the machine hits all cases."""
_LEAST_ROUNDS = 21
_MOST_ROUNDS = 2001
_STEADY = 0.03
_STEADY_BATCHES = 4


@dataclass(frozen=True)
class Timing:
    """How long to measure.

    Attributes
    ----------
    duration : float
        Seconds for each case.
    iterations : int
        The least number of calls for each case.
    warm_up : float
        The most seconds that a case may take until its times are steady.
    """

    duration: float = 1.0
    iterations: int = 10
    warm_up: float = 5.0


@dataclass(frozen=True)
class PreparedCase:
    """A case that is ready to be measured.

    Attributes
    ----------
    mode, shapes : str
        Labels; see `Case`.
    is_peer : bool
        See `Case`.
    call : Call
        What is timed.
    """

    mode: str
    shapes: str
    is_peer: bool
    call: Call


@dataclass
class _Running:
    case: PreparedCase
    warm_up_calls: int
    calls_in_round: int
    host: Samples
    done: Samples


class Measurement:
    """Cases that are measured side by side: one round of each, again and again.

    Parameters
    ----------
    cases : sequence of PreparedCase
        All stay in their modes until the end.
    device : torch.device
        Where the work of the calls runs.
    timing : Timing
        How long.
    """

    def __init__(self, cases: Sequence[PreparedCase], device: torch.device, timing: Timing) -> None:
        self._prepared = tuple(cases)
        self._device = device
        self._timing = timing
        self._running: list[_Running] = []

    def run(self, progress: Callable[[float], None]) -> None:
        """Warm up, then measure. After an exception, `cases` has what had been measured until then.

        Parameters
        ----------
        progress : callable
            Gets the share of the work that is done, from 0 to 1.
        """
        cost = clock_cost()
        stream = stream_to_wait_for(self._device)
        for case in self._prepared:
            calls, seconds = warm_up(case.call, stream, self._timing.warm_up)
            in_round = max(1, min(1000, int(_ROUND_SECONDS / seconds)))
            self._running.append(_Running(case, calls, in_round, Samples(cost), Samples(cost)))
            progress(0.2 * len(self._running) / len(self._prepared))
        gc.collect()
        without_garbage_collection(partial(_take_turns, self._running, stream, self._timing, progress))

    def cases(self) -> tuple[Case, ...]:
        """Return the cases of which there is at least one round."""
        return tuple(_finished(state, self._device) for state in self._running if state.done.rounds)


def warm_up(call: Call, stream: int | None, limit: float) -> tuple[int, float]:
    """Call until the times are steady.

    Times are steady when the medians of the last four batches differ by at most 3 %. So captures,
    allocations and clocks that rise are over, however long they take.

    Parameters
    ----------
    call : Call
        What is called.
    stream : int or None
        See `time_calls`.
    limit : float
        The most seconds.

    Returns
    -------
    tuple of int and float
        The number of calls, and the seconds that one takes.
    """
    end = time.monotonic() + limit
    calls, size = 0, 1
    medians: list[float] = []
    while True:
        _, done = _time(call, size, stream)
        calls += size
        medians.append(statistics.median(done))
        last = medians[-_STEADY_BATCHES:]
        steady = len(last) == _STEADY_BATCHES and max(last) <= min(last) * (1 + _STEADY)
        if (steady and calls >= 10) or time.monotonic() > end:
            return calls, medians[-1] / 1e9
        size = max(1, min(1000, int(_ROUND_SECONDS * 1e9 / medians[-1])))


def stream_to_wait_for(device: torch.device) -> int | None:
    """Return the handle of the current stream, or None where calls wait for their work themselves."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None


def _take_turns(
    running: list[_Running], stream: int | None, timing: Timing, progress: Callable[[float], None]
) -> None:
    left = {id(state): timing.duration for state in running}
    calls = dict.fromkeys(left, 0)
    for turn in range(_MOST_ROUNDS):
        active = [
            state
            for state in running
            if turn < _LEAST_ROUNDS or left[id(state)] > 0 or calls[id(state)] < timing.iterations
        ]
        if not active:
            return
        for state in active:
            begin = time.perf_counter()
            host, done = _time(state.case.call, state.calls_in_round, stream)
            left[id(state)] -= time.perf_counter() - begin
            calls[id(state)] += state.calls_in_round
            state.host.add(host)
            state.done.add(done)
        progress(0.2 + 0.8 * (1 - max(0.0, *left.values()) / timing.duration))


def _time(call: Call, calls: int, stream: int | None) -> tuple[array[int], array[int]]:
    return time_calls(call.function, calls, call.arguments, dict(call.keywords or {}), stream)


def _finished(state: _Running, device: torch.device) -> Case:
    host = state.host.times()
    done = state.done.times() if device.type == "cuda" else host
    return Case(state.case.mode, state.case.shapes, state.case.is_peer, state.warm_up_calls, host, done)
