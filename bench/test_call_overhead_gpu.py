"""The cost of one call that launches one empty kernel, next to its floors: pytest bench -m gpu."""

from __future__ import annotations

from collections.abc import Iterator

import measure
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from scenarios import Scenario, scenarios_for

ROUNDS = 60

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """A CUDA device, with a stream other than the legacy default one current."""
    device = torch.device("cuda", torch.cuda.current_device())
    with torch.cuda.stream(torch.cuda.Stream(device)):
        yield device


@pytest.mark.parametrize("scenario", scenarios_for("cuda"), ids=lambda scenario: scenario.name)
def test_call(benchmark: BenchmarkFixture, scenario: Scenario, cuda: torch.device) -> None:
    def wait_for_device() -> None:
        # Else a launch of the next round waits for room in the queue, and the GPU is what is measured.
        torch.cuda.synchronize(cuda)

    with measure.calling_stream(scenario, cuda):
        call = scenario.make(cuda)
        call.repeat(measure.WARM_UP_CALLS)
        benchmark.group = scenario.group
        benchmark.pedantic(
            call,
            rounds=ROUNDS,
            iterations=measure.CALLS_PER_ROUND["cuda"],
            warmup_rounds=2,
            teardown=wait_for_device,
        )
