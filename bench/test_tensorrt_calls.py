"""The calls to TensorRT that trt_rt makes in the steady state, counted by the null engine's context."""

from __future__ import annotations

import null_engine
import pytest
import scenarios
import torch
from prepared_call import PreparedCall
from scenarios import Way

CPU = torch.device("cpu")
WARM_UP, CALLS = 5, 20


def steady_calls(call: PreparedCall, before: set[null_engine.IExecutionContext]) -> dict[str, int]:
    """Calls of TensorRT, by method, in `CALLS` calls after the first few."""
    call.repeat(WARM_UP)
    (context,) = null_engine.live_contexts() - before
    context.reset_calls()
    call.repeat(CALLS)
    return context.calls


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize(
    "way",
    [
        scenarios.BIND,
        scenarios.EXECUTOR_PRE_ALLOCATED,
        scenarios.MODULE_PRE_ALLOCATED,
        scenarios.MODULE_OUT,
    ],
    ids=lambda way: way.name,
)
def test_nothing_but_the_enqueue_when_nothing_changed(way: Way, size: int) -> None:
    before = null_engine.live_contexts()
    call = scenarios.engine_call(way, size, size)(CPU)
    assert steady_calls(call, before) == {"execute_async_v3": CALLS}


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("way", [scenarios.EXECUTOR_FRESH, scenarios.MODULE_FRESH], ids=lambda way: way.name)
def test_fresh_outputs_cost_one_address_each(way: Way, size: int) -> None:
    before = null_engine.live_contexts()
    call = scenarios.engine_call(way, size, size)(CPU)
    calls = steady_calls(call, before)
    assert calls.pop("execute_async_v3") == CALLS
    assert set(calls) == {"set_tensor_address"}
    assert calls["set_tensor_address"] <= CALLS * size


def test_a_new_input_address_costs_one_call() -> None:
    before = null_engine.live_contexts()
    call = scenarios.alternating(scenarios.MODULE_PRE_ALLOCATED, scenarios.SHAPE, scenarios.SHAPE)(CPU)
    assert steady_calls(call, before) == {"execute_async_v3": CALLS, "set_tensor_address": CALLS}


def test_a_shape_seen_before_is_not_derived_again() -> None:
    before = null_engine.live_contexts()
    call = scenarios.alternating(scenarios.MODULE_PRE_ALLOCATED, scenarios.SHAPE, scenarios.OTHER_SHAPE)(CPU)
    assert steady_calls(call, before) == {
        "execute_async_v3": CALLS,
        "set_input_shape": CALLS,
        "set_tensor_address": 2 * CALLS,
    }
