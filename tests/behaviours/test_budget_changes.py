"""Contexts and graphs follow a budget, whatever the mode."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.behaviours.graph_modes import GRAPH_MODES, graphed
from tests.behaviours.modes import MODES, Caller
from tests.behaviours.recording import recorded
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.runtime import enable_cudagraphs, weight_streaming


def _budgets(streaming: Any) -> list[int]:
    total = streaming.total_device_budget
    return [0, total, total // 2, 1, total - 1, total]


@pytest.mark.behaviour(5)
@pytest.mark.parametrize("mode", MODES)
def test_calls_are_right_with_every_budget(make, mode):
    """However outputs are made, calls of several shapes are right before, with and after every budget."""
    case = make("streaming")
    module = case.module()
    call = Caller(module, mode)

    def check() -> None:
        for n in (8, 12, 12, 8):
            inputs = case.example(n)
            expected = case.expected(*inputs)
            case.assert_right(call(inputs, expected), expected)

    check()
    with weight_streaming(module) as streaming:
        for budget in _budgets(streaming):
            streaming.device_budget = budget
            assert streaming.device_budget == budget
            check()
    assert streaming.device_budget == streaming.total_device_budget
    check()


@pytest.mark.behaviour(5)
@pytest.mark.parametrize(
    "modes",
    [
        {"output_allocator": True},
        {"dynamic_resources": True},
        {"optimization_profile": 0},
        {"pre_allocated_outputs": 3, "dynamic_resources": True},
    ],
    ids="+".join,
)
def test_modes_survive_a_budget(make, modes):
    """An allocator, a forced profile, dynamic resources and pre-allocated outputs outlive the context."""
    case = make("streaming")
    module = case.module()
    module.executors.change(**modes)
    with weight_streaming(module) as streaming:
        for budget in _budgets(streaming):
            streaming.device_budget = budget
            for n in (3, 8, 3):
                inputs = case.example(n)
                case.assert_right(module(*inputs), case.expected(*inputs))
    assert {name: getattr(module.executors.modes, name) for name in modes} == modes


@pytest.mark.behaviour(5)
def test_a_new_context_is_told_of_the_allocator_and_the_profile(make):
    """What a context was told before a budget changed, the next context is told too."""
    case = make("streaming")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    module.executors.change(output_allocator=True)
    module(*case.example(3))
    with weight_streaming(module) as streaming:
        for budget in (0, streaming.total_device_budget):
            streaming.device_budget = budget
            calls.made.clear()
            inputs = case.example(3)
            case.assert_right(module(*inputs), case.expected(*inputs))
            assert calls.arguments("set_output_allocator")
            assert calls.arguments("set_input_shape")


@pytest.mark.behaviour(5)
def test_a_profiler_survives_a_budget(make):
    """Layers are timed before, while and after weights are streamed."""
    case = make("streaming")
    module = case.module()
    api = case.backend.api

    class Profiler(api.IProfiler):
        def __init__(self) -> None:
            api.IProfiler.__init__(self)
            self.layers: list[str] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers.append(layer_name)

    profiler = Profiler()
    module.executors.change(profiler=profiler)
    with weight_streaming(module) as streaming:
        for budget in _budgets(streaming):
            streaming.device_budget = budget
            profiler.layers.clear()
            inputs = case.example(3)
            case.assert_right(module(*inputs), case.expected(*inputs))
            assert profiler.layers


@pytest.mark.behaviour(5)
def test_a_bound_call_survives_a_budget(make):
    """A call that was bound before a budget changed is right after it, with its own tensors."""
    case = make("streaming")
    module = case.module()
    inputs = case.example(3)
    bound = module.bind(*inputs)
    held = bound()
    with weight_streaming(module) as streaming:
        for budget in _budgets(streaming):
            streaming.device_budget = budget
            inputs[0].copy_(torch.randn_like(inputs[0]))
            result = bound()
            assert result is held
            case.assert_right(result, case.expected(*inputs))


@pytest.mark.behaviour(6)
def test_graphs_of_another_budget_are_not_replayed(make):
    """Graphs from before weights were streamed are gone: they are captured again, and right."""
    case = make("streaming")
    module = case.module()
    inputs = case.example(3)
    captures = []
    for budget in (None, 0, None, 100, None):
        if budget is None:
            with enable_cudagraphs(module) as graphs:
                before = module.stats()["captures"]
                for _ in range(3):
                    inputs = case.example(3)
                    case.assert_right(graphs(*inputs), case.expected(*inputs))
                captures.append(module.stats()["captures"] - before)
        else:
            with weight_streaming(module) as streaming:
                streaming.device_budget = budget
                before = module.stats()["captures"]
                case.assert_right(module(*inputs), case.expected(*inputs))
                assert module.stats()["captures"] == before
    assert all(captures)


@pytest.mark.behaviour(6)
@pytest.mark.parametrize("mode", GRAPH_MODES)
@pytest.mark.parametrize("first", ["graphs", "streaming"])
def test_graphs_rest_while_weights_are_streamed(make, first, mode):
    """Whichever comes second, calls are right, with one warning, and graphs come back afterwards."""
    case = make("streaming")
    inputs = case.example(3)
    with contextlib.ExitStack() as contexts:
        if first == "graphs":
            graphs = contexts.enter_context(graphed(case, mode))
            graphs.check(*inputs)
            streaming = contexts.enter_context(weight_streaming(graphs.engine))
            streaming.device_budget = 0
        else:
            engine = case.module()
            streaming = contexts.enter_context(weight_streaming(engine))
            streaming.device_budget = 0
            graphs = contexts.enter_context(graphed(case, mode, engine=engine))
        captures = graphs.captures
        with pytest.warns(RuntimeWarning, match="run without graphs") as caught:
            graphs.check(*inputs)
        assert len(caught) == 1
        for n in (1, 3):
            graphs.check(*case.example(n))
        assert graphs.captures == captures
        streaming.device_budget = streaming.total_device_budget
        graphs.check(*inputs)
        assert graphs.captures == captures + 1
    case.assert_right(graphs.engine(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(5)
def test_budgets_change_while_threads_call(make):
    """Threads call without a pause while another changes the budget; every result is right."""
    case = make("streaming")
    module = case.module()
    finished = threading.Event()
    rounds = [0] * 3

    def call(thread: int) -> None:
        while not finished.is_set() or rounds[thread] < 5:
            inputs = case.example(1 + thread + rounds[thread] % 3)
            case.assert_right(module(*inputs), case.expected(*inputs))
            rounds[thread] += 1

    with ThreadPoolExecutor(len(rounds)) as pool:
        callers = [pool.submit(call, thread) for thread in range(len(rounds))]
        try:
            for _ in range(4):
                with weight_streaming(module) as streaming:
                    for budget in _budgets(streaming):
                        streaming.device_budget = budget
        finally:
            finished.set()
        for caller in callers:
            caller.result(SECONDS_UNTIL_DEADLOCK)
    assert min(rounds) >= 5
