"""Accuracy and latency of the demonstration's modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import torch

from trt_rt._core.garbage_collection import without_garbage_collection
from trt_rt.demo.data import Digits
from trt_rt.demo.modes import Mode

__all__ = ["Agreement", "Latency", "compare_with_first", "measure_latency"]

_CALLS_PER_TURN = 20


@dataclass(frozen=True)
class Agreement:
    """The results of a mode, compared with the first mode.

    Attributes
    ----------
    mode : str
        Name of the mode.
    accuracy : float
        Fraction of the digits that the mode reads correctly, 0 to 1.
    differing_predictions : int
        Digits that it reads differently from the first mode, over all batch sizes.
    largest_difference : float
        Largest absolute difference of any score from the first mode's.
    """

    mode: str
    accuracy: float
    differing_predictions: int
    largest_difference: float


@dataclass(frozen=True)
class Latency:
    """The duration of one call, in microseconds.

    Attributes
    ----------
    mode : str
        Name of the mode.
    batch_size : int
        Images per call.
    median_us, p99_us : float
        Host time until the call returns. On CUDA that is the time to enqueue the work.
    synchronized_median_us, synchronized_p99_us : float or None
        Host time until the result is computed. None on the CPU, where the call returns the computed result.
    """

    mode: str
    batch_size: int
    median_us: float
    p99_us: float
    synchronized_median_us: float | None
    synchronized_p99_us: float | None


def compare_with_first(modes: Sequence[Mode], digits: Digits, batch_sizes: Sequence[int]) -> list[Agreement]:
    """Run all digits through each mode, once per batch size, and compare with the first mode.

    The last batch is ragged where the batch size does not divide the number of digits.
    """
    expected = _scores(modes[0], digits.images, batch_sizes)
    labels = digits.labels.repeat(len(batch_sizes))
    return [
        _agreement(mode.name, _scores(mode, digits.images, batch_sizes), expected, labels) for mode in modes
    ]


def _scores(mode: Mode, images: torch.Tensor, batch_sizes: Sequence[int]) -> torch.Tensor:
    batches = [batch for size in batch_sizes for batch in images.split(size)]
    return torch.cat([mode.prepare(batch)().clone() for batch in batches])


def _agreement(name: str, scores: torch.Tensor, expected: torch.Tensor, labels: torch.Tensor) -> Agreement:
    predictions = scores.argmax(dim=1)
    return Agreement(
        mode=name,
        accuracy=int((predictions == labels).sum()) / len(labels),
        differing_predictions=int((predictions != expected.argmax(dim=1)).sum()),
        largest_difference=(scores - expected).abs().max().item(),
    )


def measure_latency(
    modes: Sequence[Mode], images: torch.Tensor, batch_size: int, calls: int
) -> list[Latency]:
    """Time `calls` calls of each mode on the first `batch_size` images, after a few calls to warm up.

    The modes take turns of a few calls each, so that other work on the machine slows all of them alike. The
    current stream must not be the default stream.
    """
    batch = images[:batch_size].contiguous()
    synchronize = torch.cuda.current_stream(batch.device).synchronize if batch.is_cuda else None
    prepared = [mode.prepare(batch) for mode in modes]
    for call in prepared:
        _time_calls(call, _CALLS_PER_TURN, synchronize)
    times: list[list[tuple[int, int]]] = [[] for _ in modes]

    def take_turns() -> None:
        for first in range(0, calls, _CALLS_PER_TURN):
            for call, taken in zip(prepared, times, strict=True):
                taken += _time_calls(call, min(_CALLS_PER_TURN, calls - first), synchronize)

    without_garbage_collection(take_turns)
    return [
        _latency(mode.name, batch_size, taken, batch.is_cuda)
        for mode, taken in zip(modes, times, strict=True)
    ]


def _time_calls(
    call: Callable[[], object], count: int, synchronize: Callable[[], None] | None
) -> list[tuple[int, int]]:
    """Return, for each call, the nanoseconds until it returned and until its result was computed."""
    taken = []
    for _ in range(count):
        start = perf_counter_ns()
        call()
        returned = perf_counter_ns()
        if synchronize is not None:
            synchronize()
        taken.append((returned - start, perf_counter_ns() - start))
    return taken


def _latency(name: str, batch_size: int, taken: list[tuple[int, int]], is_cuda: bool) -> Latency:
    (median, synchronized_median), (p99, synchronized_p99) = (
        np.percentile(np.array(taken), [50, 99], axis=0) / 1e3
    ).tolist()
    return Latency(
        mode=name,
        batch_size=batch_size,
        median_us=median,
        p99_us=p99,
        synchronized_median_us=synchronized_median if is_cuda else None,
        synchronized_p99_us=synchronized_p99 if is_cuda else None,
    )
