"""The cost of one call over a null engine on the CPU, next to its floors: pytest bench -m "not gpu"."""

from __future__ import annotations

import measure
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from scenarios import Scenario, scenarios_for

ROUNDS = 60
CPU = torch.device("cpu")


@pytest.mark.parametrize("scenario", scenarios_for("cpu"), ids=lambda scenario: scenario.name)
def test_call(benchmark: BenchmarkFixture, scenario: Scenario) -> None:
    call = scenario.make(CPU)
    call.repeat(measure.WARM_UP_CALLS)
    benchmark.group = scenario.group
    benchmark.pedantic(call, rounds=ROUNDS, iterations=measure.CALLS_PER_ROUND["cpu"], warmup_rounds=2)
