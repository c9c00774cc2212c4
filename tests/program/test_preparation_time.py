"""An engine costs at most half a second of the processor besides its build."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="the package transformers is not installed")

from tests.program import measure
from trt_rt.backend import Backend

SECONDS = 0.5
TRIES = 5


def test_preparing_an_engine_takes_less_than_twice_what_is_promised(rtx: Backend) -> None:
    """This network takes the longest. Other processes slow the processor down, so one fast try is enough."""
    measure.once()
    times = []
    for _ in range(TRIES):
        prepared = measure.prepare("MobileNetV2")
        assert len(prepared.divided.divided.parts) == 1
        times.append(prepared.seconds)
        if times[-1] < SECONDS:
            break
    assert min(times) < 2 * SECONDS, f"the tries took {times} s"
