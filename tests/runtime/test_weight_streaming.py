"""weight_streaming: what it accepts, how engines share a budget, what is back afterwards."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.budget_engines import chain, plain_plan, streaming_plan
from trt_rt import BackendError, ClosedError, Engine, ExecutionError, TRTModule
from trt_rt.engine.budget_shares import budget_shares
from trt_rt.engine.contexts import ContextFactory
from trt_rt.runtime import enable_cudagraphs, weight_streaming

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


@given(sizes=sizes_of_engines, data=st.data())
def test_shares_are_exact_and_fair(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    budget = data.draw(st.integers(0, total))
    shares = budget_shares(budget, sizes)
    assert sum(shares) == budget
    for share, size in zip(shares, sizes, strict=True):
        assert 0 <= share <= size
        assert abs(share * total - budget * size) < total  # less than a byte from its part


@given(sizes=sizes_of_engines)
def test_the_whole_and_nothing_are_shared_exactly(sizes: list[int]) -> None:
    assert budget_shares(0, sizes) == [0] * len(sizes)
    assert budget_shares(sum(sizes), sizes) == sizes


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


def test_graphs_are_refused_while_weights_are_streamed(program: torch.nn.Module) -> None:
    with weight_streaming(program) as streaming:
        streaming.device_budget = TOTAL - 1
        with pytest.raises(ValueError, match=r"while weight_streaming is on"):
            enable_cudagraphs(program).__enter__()
        check(program)
        streaming.device_budget = TOTAL
        with enable_cudagraphs(program) as graphs:
            check(graphs)
        streaming.device_budget = 0
        check(program)
    check(program)


def test_streaming_is_refused_while_graphs_are_on(program: torch.nn.Module) -> None:
    with enable_cudagraphs(program) as graphs:
        check(graphs)
        with weight_streaming(program) as streaming:
            check(graphs)
            with pytest.raises(ValueError, match=rf"CUDA graph: TensorRT waits .*{TOTAL}"):
                streaming.device_budget = TOTAL // 2
            streaming.device_budget = TOTAL
            assert streaming.device_budget == TOTAL
            check(graphs)
    with weight_streaming(program) as streaming:
        streaming.device_budget = 0
        check(program)


def test_streaming_is_refused_for_an_engine_that_another_module_runs_as_a_graph() -> None:
    engine = Engine.from_bytes(streaming_plan(10))
    one, other = TRTModule(engine), TRTModule(engine)
    with enable_cudagraphs(one) as graphs, weight_streaming(other) as streaming:
        with pytest.raises(ValueError, match="CUDA graph"):
            streaming.device_budget = 0
        check(graphs, 1)
        check(other, 1)


def test_streaming_is_refused_while_the_program_is_one_graph(program: torch.nn.Module) -> None:
    mixed = torch.nn.Sequential(program, torch.nn.ReLU())
    x = torch.rand(3, 4)
    with enable_cudagraphs(mixed, whole_graph=True) as graph, weight_streaming(graph) as streaming:
        torch.testing.assert_close(graph(x), x + 3)
        with pytest.raises(ValueError, match="CUDA graph"):
            streaming.device_budget = 0
        torch.testing.assert_close(streaming(x), x + 3)
    with weight_streaming(mixed) as streaming:
        streaming.device_budget = 0
        with pytest.raises(ValueError, match="stream"), enable_cudagraphs(mixed, whole_graph=True):
            pytest.fail("graphs were switched on")
        torch.testing.assert_close(streaming(x), x + 3)
