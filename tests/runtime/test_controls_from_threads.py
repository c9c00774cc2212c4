"""Controls that exclude each other, entered from two threads at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.runtime import enable_cudagraphs, enable_output_allocator, enable_profiling

PATIENCE = 1.0  # seconds until a thread stops waiting for one that is kept out


class Meeting:
    """Lets two threads meet on their way to change a module's modes, after each has looked at them."""

    def __init__(self, module: TRTModule) -> None:
        self._change = module.executors.change
        self._barrier = threading.Barrier(2)
        self._arrived = threading.local()
        module.executors.change = self.change  # type: ignore[method-assign]

    def change(self, **changes: Any) -> Any:
        if not hasattr(self._arrived, "once"):
            self._arrived.once = True
            # Broken: the other thread is kept from looking until this one has changed them, as it should.
            with contextlib.suppress(threading.BrokenBarrierError):
                self._barrier.wait(PATIENCE)
        return self._change(**changes)


PAIRS = {
    "graphs and allocator": (enable_cudagraphs, enable_output_allocator),
    "allocator and graphs": (enable_output_allocator, enable_cudagraphs),
    "graphs and profiling": (enable_cudagraphs, enable_profiling),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_only_one_of_two_that_exclude_each_other_is_entered(pair: str) -> None:
    module = TRTModule(plans.affine())
    Meeting(module)
    x = torch.randn(3, 7)
    entered: list[Any] = []
    left = threading.Barrier(2)

    def enter(control: Callable[[TRTModule], Any]) -> str:
        try:
            with control(module) as called:
                entered.append(control)
                left.wait(10 * PATIENCE)
                torch.testing.assert_close(called(x), torch.relu(x) * 2 + 1)
            return "entered"
        except ValueError as refusal:
            left.wait(10 * PATIENCE)
            return str(refusal)

    with ThreadPoolExecutor(2) as threads:
        outcomes = [task.result() for task in [threads.submit(enter, control) for control in PAIRS[pair]]]
    assert outcomes.count("entered") == 1, outcomes
    refusal = next(outcome for outcome in outcomes if outcome != "entered")
    assert entered[0].__name__ in refusal
    torch.testing.assert_close(module(x), torch.relu(x) * 2 + 1)
