"""weight_streaming: what it accepts, how engines share a budget, what is back afterwards."""

from __future__ import annotations

import contextlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.properties.examples import examples
from tests.runtime.budget_engines import chain, plain_plan, streaming_plan
from trt_rt import BackendError, ClosedError, Engine, ExecutionError, TRTModule
from trt_rt.engine.budget_shares import budget_shares
from trt_rt.engine.contexts import ContextFactory
from trt_rt.runtime import (
    enable_cudagraphs,
    enable_pre_allocated_outputs,
    set_cudagraphs_mode,
    weight_streaming,
)

ROWS = (1, 10, 100)
SIZES = tuple(16 * rows for rows in ROWS)
TOTAL = sum(SIZES)


@pytest.fixture
def program() -> torch.nn.Sequential:
    return chain(*(streaming_plan(rows) for rows in ROWS))


def budgets(program: torch.nn.Module) -> list[int]:
    return [part.engine.weight_streaming_budget for part in program.modules() if isinstance(part, TRTModule)]


def check(program: torch.nn.Module, added: int = len(ROWS)) -> None:
    for batch in (3, 1, 3):
        x = torch.randn(batch, 4)
        torch.testing.assert_close(program(x), x + added)


sizes_of_engines = st.lists(st.integers(0, 2**62), min_size=1, max_size=8).filter(any)


@examples(100)
@given(sizes=sizes_of_engines, data=st.data())
def test_shares_are_exact_and_fair(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    budget = data.draw(st.integers(0, total))
    shares = budget_shares(budget, sizes)
    assert sum(shares) == budget
    for share, size in zip(shares, sizes, strict=True):
        assert 0 <= share <= size
        assert abs(share * total - budget * size) < total  # less than a byte from its part


@examples(100)
@given(sizes=sizes_of_engines)
def test_the_whole_and_nothing_are_shared_exactly(sizes: list[int]) -> None:
    assert budget_shares(0, sizes) == [0] * len(sizes)
    assert budget_shares(sum(sizes), sizes) == sizes


@examples(100)
@given(sizes=sizes_of_engines, data=st.data())
def test_shares_do_not_depend_on_luck(sizes: list[int], data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, sum(sizes)))
    forwards = budget_shares(budget, sizes)
    backwards = budget_shares(budget, sizes[::-1])[::-1]
    assert sorted(forwards) == sorted(backwards)
    assert max(abs(a - b) for a, b in zip(forwards, backwards, strict=True)) <= 1


def test_left_over_bytes_go_to_the_largest_remainders() -> None:
    assert budget_shares(2, [1, 1, 1]) == [1, 1, 0]
    assert budget_shares(100, [1000, 3000]) == [25, 75]
    assert budget_shares(3, [10, 30, 60]) == [0, 1, 2]


def test_at_first_nothing_is_streamed(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming:
        assert streaming.total_device_budget == TOTAL
        assert streaming.device_budget == TOTAL
        check(program)
    assert budgets(program) == list(SIZES)


@pytest.mark.parametrize("budget", [0, 1, 15, 16, 17, 100, TOTAL // 2, TOTAL - 1, TOTAL])
def test_a_budget_is_in_force_to_the_byte(program: torch.nn.Module, budget: int) -> None:
    check(program)
    with weight_streaming(program) as streaming:
        streaming.device_budget = budget
        assert streaming.device_budget == budget
        assert budgets(program) == budget_shares(budget, SIZES)
        check(program)
    assert budgets(program) == list(SIZES)
    check(program)


def test_what_it_gives_can_be_called(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = 0
        x = torch.randn(3, 4)
        torch.testing.assert_close(streaming(x), x + 3)
        with weight_streaming(program[0]) as part:
            torch.testing.assert_close(part(x=x), x + 1)


def test_the_automatic_budget_can_be_set(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming:
        budget = streaming.get_automatic_weight_streaming_budget()
        assert 0 <= budget <= TOTAL
        streaming.device_budget = budget
        assert streaming.device_budget == budget
        check(program)


@pytest.mark.parametrize("budget", [TOTAL + 1, 2**40, 2**63 - 1])
def test_more_than_all_is_all(program: torch.nn.Module, budget: int) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = 0
        streaming.device_budget = budget
        assert streaming.device_budget == TOTAL
        check(program)


@pytest.mark.parametrize("budget", [-1, -(2**70), 2**63, 10**30])
def test_numbers_that_make_no_sense(program: torch.nn.Module, budget: int) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = 100
        with pytest.raises(ValueError, match=f"from 0 .* to total_device_budget .*, not {budget}"):
            streaming.device_budget = budget
        assert streaming.device_budget == 100
        check(program)


@pytest.mark.parametrize(
    "budget",
    [True, False, 1.5, 100.0, float("nan"), "100", None, [100], torch.tensor(1.5), 3j],
    ids=repr,
)
def test_what_is_no_number_of_bytes(program: torch.nn.Module, budget: object) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = 100
        with pytest.raises(TypeError, match="device_budget takes whole bytes"):
            streaming.device_budget = budget
        assert streaming.device_budget == 100


def test_a_float_is_told_how_to_become_a_budget(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming, pytest.raises(TypeError, match=r"int\(883.2\)"):
        streaming.device_budget = 883.2


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_integers_of_other_kinds(program: torch.nn.Module, kind: type) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = kind(200)
        assert streaming.device_budget == 200


def test_the_total_is_not_to_be_set(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming, pytest.raises(AttributeError):
        streaming.total_device_budget = 5


def test_an_exception_inside_restores_the_budget(program: torch.nn.Module) -> None:
    with contextlib.suppress(KeyError), weight_streaming(program) as streaming:
        streaming.device_budget = 0
        raise KeyError
    assert budgets(program) == list(SIZES)
    check(program)


def test_nested_each_restores_what_it_found(program: torch.nn.Module) -> None:
    with weight_streaming(program) as outer:
        outer.device_budget = 500
        shares = budgets(program)
        with weight_streaming(program[2]) as inner:
            assert inner.device_budget == shares[2]
            inner.device_budget = 0
            assert budgets(program) == [*shares[:2], 0]
            with outer:
                outer.device_budget = 7
                check(program)
            assert budgets(program) == [*shares[:2], 0]
            check(program)
        assert outer.device_budget == 500
        assert budgets(program) == shares
    assert budgets(program) == list(SIZES)


def test_without_with_a_budget_stays(program: torch.nn.Module) -> None:
    weight_streaming(program).device_budget = 123
    assert sum(budgets(program)) == 123
    check(program)
    with weight_streaming(program) as streaming:
        streaming.device_budget = TOTAL
    assert sum(budgets(program)) == 123


def test_engines_that_cannot_stream_are_left_alone() -> None:
    program = chain(plain_plan(), streaming_plan(10), plain_plan())
    before = program[0].stats()["contexts"], program[0].executor
    with weight_streaming(program) as streaming:
        assert streaming.total_device_budget == 160
        streaming.device_budget = 80
        assert budgets(program) == [0, 80, 0]
        check(program)
    assert (program[0].stats()["contexts"], program[0].executor) == before
    check(program)


def test_a_module_with_nothing_to_stream() -> None:
    with pytest.raises(BackendError, match="'engine 0', 'engine 1' was not built for weight streaming"):
        weight_streaming(chain(plain_plan(), plain_plan()))


def test_a_module_with_no_engine() -> None:
    with pytest.raises(ValueError, match="no TensorRT engine"):
        weight_streaming(torch.nn.Linear(2, 2))


def test_an_engine_that_modules_share_counts_once() -> None:
    engine = Engine.from_bytes(streaming_plan(10))
    elsewhere = TRTModule(engine)
    program = torch.nn.Sequential(TRTModule(engine), TRTModule(engine), *chain(streaming_plan(30)))
    check(elsewhere, 1)
    with weight_streaming(program) as streaming:
        assert streaming.total_device_budget == 16 * 40
        streaming.device_budget = 100
        assert budgets(program) == [25, 25, 75]
        check(program)
        check(elsewhere, 1)
    assert engine.weight_streaming_budget == 160
    check(elsewhere, 1)


def test_setting_the_budget_in_force_costs_nothing(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = 200
        check(program)
        before = [part.stats() for part in program]
        streaming.device_budget = 200
        x = torch.randn(3, 4)
        program(x)
        assert [part.stats()["shape_changes"] for part in program] == [
            stats["shape_changes"] for stats in before
        ]


def test_an_engine_that_refuses_leaves_all_as_they_were(program: torch.nn.Module) -> None:
    check(program)
    with weight_streaming(program) as streaming:
        streaming.device_budget = 500
        shares = budgets(program)
        # TensorRT changes no budget while there are contexts, and this one is nobody's.
        foreign = ContextFactory(program[2].engine.handle).create()
        with pytest.raises(
            ExecutionError, match=r"'engine 2': .* budget of \d+ bytes and keeps \d+ bytes.*contexts"
        ):
            streaming.device_budget = 0
        assert budgets(program) == shares
        check(program)
        del foreign
        streaming.device_budget = 0
        check(program)
    assert budgets(program) == list(SIZES)


def test_an_engine_that_was_closed_inside(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = 0
        program[1].engine.close()
        with pytest.raises(ClosedError, match="'engine 1' was closed"):
            streaming.device_budget = 10
    assert [program[index].engine.weight_streaming_budget for index in (0, 2)] == [SIZES[0], SIZES[2]]
    with pytest.raises(ClosedError):
        weight_streaming(program)


# ---- with CUDA graphs, which cannot contain what streaming does

KINDS = ["an engine", "a program", "an engine in a program"]
WITHOUT_GRAPHS = "streams weights, .* calls run without graphs"


class Graphed:
    """An engine with streamable weights within enable_cudagraphs, alone or in one graph of a program."""

    def __init__(self, kind: str, device: str) -> None:
        self.device = device
        self.engine = TRTModule(Engine.from_bytes(streaming_plan(100, device), device=device))
        program = torch.nn.Sequential(self.engine, torch.nn.ReLU())
        self.program = self.engine if kind == "an engine" else program
        self.is_whole = kind == "a program"
        self._inputs = {batch: torch.empty(batch, 4, device=device) for batch in (1, 3)}

    def graphs(self) -> Any:
        return enable_cudagraphs(self.program, whole_graph=self.is_whole)

    def check(self, run: Any) -> tuple[int, int]:
        """Call three times, and return how many graphs that has captured and replayed."""
        stats = run.stats if self.is_whole else self.engine.stats
        before = stats()
        for batch in (3, 1, 3):
            x = self._inputs[batch].uniform_()
            torch.testing.assert_close(run(x), x + 1)
        after = stats()
        assert after["calls"] == before["calls"] + 3
        return after["captures"] - before["captures"], after["replays"] - before["replays"]


@pytest.fixture(params=KINDS)
def graphed(request: pytest.FixtureRequest, device: str) -> Graphed:
    return Graphed(request.param, device)


def test_a_budget_set_inside_graphs_runs_calls_without_them(graphed: Graphed) -> None:
    with graphed.graphs() as run:
        assert graphed.check(run) == (2, 1)
        with weight_streaming(graphed.program) as streaming:
            for budget in (streaming.total_device_budget // 2, 0):
                streaming.device_budget = budget
                if budget:
                    with pytest.warns(RuntimeWarning, match=WITHOUT_GRAPHS) as caught:
                        assert graphed.check(run) == (0, 0)
                    assert len(caught) == 1
                assert graphed.check(run) == (0, 0)
            streaming.device_budget = streaming.total_device_budget
            assert graphed.check(run) == (2, 1)
            assert graphed.check(run) == (0, 3)
            streaming.device_budget = 0
            assert graphed.check(run) == (0, 0)
        assert graphed.check(run) == (2, 1)


def test_graphs_are_used_once_streaming_is_over(graphed: Graphed) -> None:
    with weight_streaming(graphed.program) as streaming:
        streaming.device_budget = streaming.total_device_budget - 1
        with graphed.graphs() as run:
            with pytest.warns(RuntimeWarning, match=WITHOUT_GRAPHS):
                assert graphed.check(run) == (0, 0)
            streaming.device_budget = streaming.total_device_budget
            assert graphed.check(run) == (2, 1)


def test_results_inside_both_are_as_modes_say(graphed: Graphed) -> None:
    x = torch.rand(3, 4, device=graphed.device)
    with graphed.graphs() as run, weight_streaming(run) as streaming:
        streaming.device_budget = 0
        with pytest.warns(RuntimeWarning, match=WITHOUT_GRAPHS):
            run(x)
        with torch.inference_mode():
            assert run(x).is_inference()
        assert not run(x.clone().requires_grad_()).requires_grad
        with enable_pre_allocated_outputs(graphed.engine) as engine:
            first = engine(x)
            assert engine(x + 1) is first
            torch.testing.assert_close(run(x), x + 1)


def test_a_bound_call_has_a_graph_while_nothing_is_streamed(device: str) -> None:
    module = TRTModule(Engine.from_bytes(streaming_plan(100, device), device=device))
    x = torch.rand(3, 4, device=device)
    with enable_cudagraphs(module), weight_streaming(module) as streaming:
        bound = module.bind(x)
        for budget, graphs in ((0, (0, 0)), (1600, (1, 1)), (0, (1, 1)), (1600, (2, 2))):
            streaming.device_budget = budget
            warns = budget == 0 and graphs == (0, 0)
            with pytest.warns(RuntimeWarning, match=WITHOUT_GRAPHS) if warns else contextlib.nullcontext():
                for _ in range(2):
                    x.add_(1)
                    torch.testing.assert_close(bound(), x + 1)
            assert (module.stats()["captures"], module.stats()["replays"]) == graphs


def test_graphs_by_default(device: str) -> None:
    module = TRTModule(Engine.from_bytes(streaming_plan(100, device), device=device))
    module.set_device_memory_budget(0)
    x = torch.rand(3, 4, device=device)
    set_cudagraphs_mode(True)
    try:
        with pytest.warns(RuntimeWarning, match=WITHOUT_GRAPHS):
            torch.testing.assert_close(module(x), x + 1)
        torch.testing.assert_close(module(x), x + 1)
    finally:
        set_cudagraphs_mode(False)


def test_modules_over_one_engine(device: str) -> None:
    engine = Engine.from_bytes(streaming_plan(10, device), device=device)
    one, other = TRTModule(engine), TRTModule(engine)
    x = torch.rand(3, 4, device=device)
    with enable_cudagraphs(one), weight_streaming(other) as streaming:
        one(x)
        streaming.device_budget = 0
        with pytest.warns(RuntimeWarning, match=WITHOUT_GRAPHS):
            torch.testing.assert_close(one(x), x + 1)
        torch.testing.assert_close(other(x), x + 1)
    assert one.stats()["captures"] == 1


def test_budgets_change_while_threads_call_through_graphs(graphed: Graphed) -> None:
    """Each call runs before a change of the budget or after it, with a graph or without."""
    stop = threading.Event()

    def call(run: Any) -> int:
        calls = 0
        while not stop.is_set() or calls < 20:
            x = torch.rand(1 + calls % 4, 4, device=graphed.device)
            torch.testing.assert_close(run(x), x + 1)
            calls += 1
        return calls

    with (
        warnings.catch_warnings(),
        graphed.graphs() as run,
        weight_streaming(graphed.program) as streaming,
        ThreadPoolExecutor(3) as threads,
    ):
        warnings.simplefilter("ignore", RuntimeWarning)
        tasks = [threads.submit(call, run) for _ in range(3)]
        try:
            for budget in (0, 1600, 100, 1600) * 5:
                streaming.device_budget = budget
                assert graphed.engine.get_device_memory_budget() == budget
        finally:
            stop.set()
        assert all(task.result(SECONDS_UNTIL_DEADLOCK) >= 20 for task in tasks)
        streaming.device_budget = streaming.total_device_budget
        graphed.check(run)
