"""No operator that a file's program may call crashes, hangs or prints, whatever the file passes to it."""

from __future__ import annotations

import pytest

from tests.archive.fuzzed_programs import OPERATORS
from tests.reference.operator_fuzzing import campaign

pytestmark = pytest.mark.behaviour(28, 40)


def assert_harmless(operators: tuple[str, ...], count: int, seed: int) -> None:
    report = campaign(operators, count, seed, kind="programs")
    assert report.faults == ()
    assert report.cases == count * len(operators)
    # Otherwise the arguments would be so wrong that no kernel is ever reached.
    assert report.loaded > report.cases // 3
    assert report.succeeded > report.cases // 8


def test_hostile_arguments() -> None:
    assert_harmless(OPERATORS[::8], count=1, seed=0)


@pytest.mark.slow
def test_more_hostile_arguments() -> None:
    assert_harmless(OPERATORS, count=2, seed=1)
