"""The comparison of instruction counts with their budgets, on made-up counts."""

from __future__ import annotations

from pathlib import Path

import budgets
import pytest
from budgets import Budgets

KEY = "cp311-torch2.13.0-x86_64"
CEILINGS = {
    "executor, 1 input, 1 output": 2000,
    "each further input": 750,
    "module on top of executor": 400,
    "bind": 500,
}
COUNTS = {
    "executor_prealloc_1x1": 1000,
    "executor_prealloc_4x1": 3000,
    "module_prealloc_1x1": 1300,
    "bind_1x1": 200,
}


@pytest.fixture
def kept() -> Budgets:
    return Budgets(CEILINGS, {KEY: COUNTS})


def test_equal_counts_pass_in_silence(kept: Budgets) -> None:
    verdict = kept.check(KEY, COUNTS)
    assert (verdict.notes, verdict.failures) == ([], [])


def test_a_rise_of_two_per_cent_passes_and_of_more_fails(kept: Budgets) -> None:
    assert not kept.check(KEY, {**COUNTS, "bind_1x1": 204}).failures
    (failure,) = kept.check(KEY, {**COUNTS, "bind_1x1": 205}).failures
    for part in ("bind_1x1", "205", "200", KEY):
        assert part in failure


def test_a_fall_asks_for_a_lower_budget_and_does_not_fail(kept: Budgets) -> None:
    verdict = kept.check(KEY, {**COUNTS, "bind_1x1": 100})
    assert not verdict.failures
    assert "--update" in verdict.notes[0]


def test_scenarios_and_budgets_must_be_the_same(kept: Budgets) -> None:
    assert kept.check(KEY, {**COUNTS, "new": 1}).failures
    assert Budgets(CEILINGS, {KEY: {**COUNTS, "gone": 1}}).check(KEY, COUNTS).failures


def test_another_platform_is_held_to_the_ceilings_only(kept: Budgets) -> None:
    verdict = kept.check("cp314-other", {**COUNTS, "bind_1x1": 499})
    assert not verdict.failures
    assert "cp314-other" in verdict.notes[0]


@pytest.mark.parametrize(
    ("scenario", "count", "ceiling"),
    [
        ("executor_prealloc_1x1", 2001, "executor, 1 input, 1 output"),
        ("executor_prealloc_4x1", 1000 + 3 * 751, "each further input"),
        ("module_prealloc_1x1", 1401, "module on top of executor"),
        ("bind_1x1", 501, "bind"),
    ],
)
def test_a_ceiling_holds_on_every_platform(scenario: str, count: int, ceiling: str) -> None:
    failures = Budgets(CEILINGS, {}).check("any", {**COUNTS, scenario: count}).failures
    assert any(failure.startswith(ceiling) for failure in failures)


def test_what_is_saved_is_what_is_loaded(kept: Budgets, tmp_path: Path) -> None:
    kept.with_platform("other", COUNTS).save(tmp_path / "budgets.json")
    assert budgets.load(tmp_path / "budgets.json").platforms == {KEY: COUNTS, "other": COUNTS}


def test_the_ceilings_in_the_repository_are_the_ones_that_are_checked() -> None:
    kept = budgets.load(Path(__file__).parent / "budgets.json")
    assert set(kept.ceilings) == set(budgets.ceiling_values(COUNTS))
