"""Times calls side by side: A B C, A B C, ... in one process, so that a slow moment hits all of them."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from prepared_call import PreparedCall
from scenarios import Scenario

from trt_rt._core.garbage_collection import without_garbage_collection

# A CUDA stream holds about a thousand launches; beyond that a launch waits for the GPU, and what would be
# measured is the GPU. The device is idle at the start of each round, and a round stays well below.
CALLS_PER_ROUND = {"cpu": 1000, "cuda": 250}
WARM_UP_CALLS = 50


@dataclass(frozen=True)
class Timing:
    """Rounds of one scenario, in microseconds a call."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """The 10th and the 90th percentile of the rounds."""
        deciles = statistics.quantiles(self.rounds, n=10)
        return deciles[0], deciles[-1]

    def __add__(self, other: Timing) -> Timing:
        """Both, one after the other, round by round."""
        return Timing(tuple(mine + his for mine, his in zip(self.rounds, other.rounds, strict=True)))

    def over(self, other: Timing) -> float:
        """Median of the differences, round by round, in microseconds."""
        return statistics.median(mine - his for mine, his in zip(self.rounds, other.rounds, strict=True))

    def ratio(self, other: Timing) -> float:
        """Median of the ratios, round by round."""
        return statistics.median(mine / his for mine, his in zip(self.rounds, other.rounds, strict=True))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def calling_stream(scenario: Scenario, device: torch.device) -> Iterator[None]:
    """The stream that the scenario calls from: the one chosen for the process, or CUDA's default."""
    if scenario.legacy_default_stream:
        with torch.cuda.stream(torch.cuda.default_stream(device)):
            yield
    else:
        yield


def use_own_stream(device: torch.device) -> None:
    """Make a stream of its own current for the rest of the process; nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))


def time_interleaved(scenarios: Sequence[Scenario], device: torch.device, rounds: int) -> dict[str, Timing]:
    """Time every scenario once a round.

    Parameters
    ----------
    scenarios : sequence of Scenario
        What to time; all of them are alive together.
    device : torch.device
        Where tensors live; on CUDA each round starts with an idle device.
    rounds : int
        Rounds, each of ``CALLS_PER_ROUND`` calls.

    Returns
    -------
    dict of str to Timing
        By scenario name. Only the calls are timed, not the synchronisation between rounds.
    """
    calls = CALLS_PER_ROUND[device.type]
    prepared: list[tuple[Scenario, PreparedCall]] = []
    for scenario in scenarios:
        with calling_stream(scenario, device):
            prepared.append((scenario, scenario.make(device)))
            prepared[-1][1].repeat(WARM_UP_CALLS)
    samples: dict[str, list[float]] = {scenario.name: [] for scenario in scenarios}

    def take_turns() -> None:
        for _ in range(rounds):
            for scenario, call in prepared:
                with calling_stream(scenario, device):
                    synchronize(device)
                    start = time.perf_counter_ns()
                    call.repeat(calls)
                    samples[scenario.name].append((time.perf_counter_ns() - start) / 1000 / calls)

    gc.collect()
    without_garbage_collection(take_turns)
    synchronize(device)
    return {name: Timing(tuple(taken)) for name, taken in samples.items()}
