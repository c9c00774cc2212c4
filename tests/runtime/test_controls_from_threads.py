"""Controls that exclude each other, entered from two threads at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch

from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.reference import plans
from tests.runtime.budget_engines import chain, streaming_plan
from trt_rt import Engine, ExecutionError, TRTModule, reference
from trt_rt._core.critical import Gate
from trt_rt.runtime import (
    enable_cudagraphs,
    enable_output_allocator,
    enable_profiling,
    refit,
    weight_streaming,
)

PATIENCE = 0.5  # seconds until a thread stops waiting for one that is kept out, as it should be


class Meeting:
    """Lets two threads meet on their way to change a module's modes, after each has looked at them."""

    def __init__(self, module: TRTModule) -> None:
        self._barrier = threading.Barrier(2)
        self._arrived = threading.local()
        self.met = 0
        for name in ("change", "override"):
            setattr(module.executors, name, partial(self._meet, getattr(module.executors, name)))

    def _meet(self, change: Callable[..., Any], *args: Any, **changes: Any) -> Any:
        if not hasattr(self._arrived, "once"):
            self._arrived.once = True
            self.met += 1
            # Broken: the other thread is kept from looking until this one has changed them, as it should.
            with contextlib.suppress(threading.BrokenBarrierError):
                self._barrier.wait(PATIENCE)
        return change(*args, **changes)


@contextlib.contextmanager
def lasting_allocator(module: TRTModule) -> Iterator[TRTModule]:
    module.configure(output_allocator=True)
    yield module
    module.configure(output_allocator=False)


@contextlib.contextmanager
def lasting_profiling(module: TRTModule) -> Iterator[TRTModule]:
    module.enable_profiling()
    yield module
    module.disable_profiling()


PAIRS = {
    "graphs and allocator": (enable_cudagraphs, enable_output_allocator),
    "allocator and graphs": (enable_output_allocator, enable_cudagraphs),
    "graphs and profiling": (enable_cudagraphs, enable_profiling),
    "graphs and configure": (enable_cudagraphs, lasting_allocator),
    "graphs and a method": (enable_cudagraphs, lasting_profiling),
}
NAMES = {lasting_allocator: "enable_output_allocator", lasting_profiling: "enable_profiling"}


@pytest.mark.parametrize("pair", PAIRS)
def test_only_one_of_two_that_exclude_each_other_is_entered(pair: str) -> None:
    module = TRTModule(plans.affine())
    meeting = Meeting(module)
    x = torch.randn(3, 7)
    entered: list[Any] = []
    left = threading.Barrier(2)

    def enter(control: Callable[[TRTModule], Any]) -> str:
        try:
            with control(module) as called:
                entered.append(control)
                left.wait(SECONDS_UNTIL_DEADLOCK)
                torch.testing.assert_close(called(x), torch.relu(x) * 2 + 1)
            return "entered"
        except ValueError as refusal:
            left.wait(SECONDS_UNTIL_DEADLOCK)
            return str(refusal)

    with ThreadPoolExecutor(2) as threads:
        outcomes = [task.result() for task in [threads.submit(enter, control) for control in PAIRS[pair]]]
    assert outcomes.count("entered") == 1, outcomes
    refusal = next(outcome for outcome in outcomes if outcome != "entered")
    assert NAMES.get(entered[0], entered[0].__name__) in refusal
    assert meeting.met == 1  # the other thread was refused before it changed anything
    torch.testing.assert_close(module(x), torch.relu(x) * 2 + 1)


@pytest.mark.parametrize("enters", [False, True])
def test_budgets_of_several_engines_change_together(enters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads set a budget, or enter and leave: all engines have the budget of one, not some of each."""
    program = chain(streaming_plan(10), streaming_plan(10))
    engines = [part.engine for part in program]
    started, finished = threading.Event(), threading.Event()
    set_budget = Engine.set_weight_streaming_budget

    def set_and_wait(engine: Engine, budget: int) -> None:
        set_budget(engine, budget)
        if budget == 60:
            started.set()
            finished.wait(PATIENCE)  # in vain: the other thread waits for this one, as it should

    monkeypatch.setattr(Engine, "set_weight_streaming_budget", set_and_wait)

    def first() -> None:
        weight_streaming(program).device_budget = 120

    def second() -> None:
        assert started.wait(SECONDS_UNTIL_DEADLOCK)
        if enters:
            with weight_streaming(program):
                pass
        else:
            weight_streaming(program).device_budget = 0
        finished.set()

    with ThreadPoolExecutor(2) as threads:
        for task in [threads.submit(first), threads.submit(second)]:
            task.result()
    assert [engine.weight_streaming_budget for engine in engines] == ([60, 60] if enters else [0, 0])


class WithinACall(reference.IProfiler):
    """Does something in the middle of a call, once another thread waits for the end of that call."""

    def __init__(self, engine: Engine, change: Callable[[], object], others: Callable[[], object]) -> None:
        super().__init__()
        self._engine = engine
        self._change = change
        self._others = others
        self.refusal = ""
        self.other: threading.Thread | None = None

    @staticmethod
    def _is_free(gate: Gate) -> bool:
        here = []
        gate.defer(partial(here.append, True))  # at once, if the gate is free
        return bool(here)

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        if self.other is not None:
            return
        self.other = threading.Thread(target=self._others, daemon=True)
        self.other.start()
        while self._is_free(self._engine.context_users.gate):  # until the other thread has it
            pass
        try:
            self._change()
        except ExecutionError as error:  # itself it would keep the frames of the call, and its context
            self.refusal = str(error)


@pytest.mark.parametrize("what", ["engine", "weight_streaming", "entering", "refit"])
def test_a_change_within_a_call_is_refused_and_does_not_wait_for_itself(what: str) -> None:
    """Another thread waits for the call, and has what this thread would wait for."""
    network = torch.nn.Linear(4, 4)
    plan = reference.build(network, (torch.zeros(3, 4),), streamable_weights=True, refittable=True)
    module = TRTModule(Engine.from_bytes(plan))
    streaming = weight_streaming(module)
    changes: dict[str, Callable[[], object]] = {
        "engine": partial(module.engine.set_weight_streaming_budget, 50),
        "weight_streaming": partial(setattr, streaming, "device_budget", 50),
        "entering": streaming.__enter__,
        "refit": partial(refit, module, network.state_dict()),
    }
    others = changes["refit"] if what == "refit" else partial(module.engine.set_weight_streaming_budget, 0)
    profiler = WithinACall(module.engine, changes[what], others)
    module.executors.change(profiler=profiler)
    x = torch.randn(3, 4)
    call = threading.Thread(target=module, args=(x,), daemon=True)
    call.start()
    call.join(SECONDS_UNTIL_DEADLOCK)
    assert not call.is_alive()
    assert profiler.other is not None
    profiler.other.join(SECONDS_UNTIL_DEADLOCK)
    assert "within its own call" in profiler.refusal
    expected = module.engine.streamable_weights_size if what == "refit" else 0
    assert module.engine.weight_streaming_budget == expected
    torch.testing.assert_close(module(x), network(x).detach())
