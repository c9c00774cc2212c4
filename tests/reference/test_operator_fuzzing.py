"""No operator that a plan may call crashes, hangs, raises or prints, whatever arguments a plan gives it."""

from __future__ import annotations

import pytest

from tests.reference.operator_fuzzing import OPERATORS, campaign


def assert_harmless(count: int, seed: int) -> None:
    report = campaign(OPERATORS, count, seed)
    assert report.faults == ()
    assert report.cases == count * len(OPERATORS)
    # Otherwise the arguments would be so wrong that no kernel is ever reached.
    assert report.loaded > report.cases // 3
    assert report.succeeded > report.cases // 6


def test_hostile_arguments() -> None:
    assert_harmless(count=2, seed=0)


@pytest.mark.slow
def test_more_hostile_arguments() -> None:
    assert_harmless(count=8, seed=1)
