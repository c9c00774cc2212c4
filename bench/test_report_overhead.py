"""What `trt-rt bench` adds to a call that it measures: its times beside those of the benches' loop in C."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from prepared_call import PreparedCall
from scenarios import null_module, tensors

from trt_rt._core.timed_calls import clock_cost, time_calls
from trt_rt.report.measuring import no_garbage_collection

ROUNDS = 101
CALLS = 500
MOST = 0.03


@pytest.mark.parametrize("pre_allocated", [True, False], ids=["prealloc", "fresh"])
def test_a_measured_call_takes_what_it_takes_in_a_plain_loop(*, pre_allocated: bool) -> None:
    """Each round times the same calls in both ways; the median of the ratios decides."""
    module = null_module(torch.device("cpu"), 4, 4)
    module.set_pre_allocated_outputs(pre_allocated)
    arguments = tensors(torch.device("cpu"), 4)
    loop = PreparedCall(module, arguments)
    loop.repeat(CALLS)
    ratios = []
    with no_garbage_collection():
        cost = clock_cost()
        for _ in range(ROUNDS):
            begin = time.perf_counter_ns()
            loop.repeat(CALLS)
            plain = (time.perf_counter_ns() - begin) / CALLS
            returned, _ = time_calls(module, CALLS, arguments)
            ratios.append((statistics.fmean(returned) - cost) / plain)
    added = statistics.median(ratios) - 1
    print(f"\ntrt-rt bench adds {added:+.1%} to a call of {plain / 1000:.2f} µs")
    assert -2 * MOST < added < MOST
