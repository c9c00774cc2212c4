"""The table of docs/modes.md: it says of each pair of controls what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.behaviours.controls import BY_NAME
from tests.runtime.budget_engines import streaming_plan
from tests.runtime.played_rtx import played_backend
from trt_rt import TRTModule
from trt_rt.module.composition import _IS_ON, CONTROLS, EXCLUSIONS, refuse_if
from trt_rt.runtime import set_cudagraphs_mode

_PAGE = Path(__file__).parents[2] / "docs" / "modes.md"


def _section() -> str:
    return _PAGE.read_text().partition("\n## Two at once\n")[2].partition("\n## ")[0]


def _table() -> dict[tuple[str, str], str]:
    lines = [line for line in _section().splitlines() if line.startswith("|")]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    heading, _, *body = rows
    return {(row[0], column): cell for row in body for column, cell in zip(heading[1:], row[1:], strict=True)}


def test_the_table_has_every_ordered_pair() -> None:
    assert list(_table()) == [(outer, inner) for outer in CONTROLS for inner in CONTROLS]


@pytest.mark.parametrize(("outer", "inner"), [(outer, inner) for outer in CONTROLS for inner in CONTROLS])
def test_the_table_says_what_the_code_does(outer: str, inner: str) -> None:
    module = TRTModule(streaming_plan(100), backend=played_backend(), device="cpu")
    outcome = "works"
    with BY_NAME[outer](module):
        try:
            with BY_NAME[inner](module):
                pass
        except ValueError:
            outcome = "refused"
    assert _table()[outer, inner] == outcome


def test_the_page_gives_the_reason_of_every_refusal() -> None:
    text = re.sub(r"\s+", " ", _section())
    for pair, reason in EXCLUSIONS.items():
        first, second = sorted(pair, key=CONTROLS.index)
        assert f"`{first}` with `{second}`: {reason}." in text


def test_every_control_that_excludes_another_is_noticed_while_it_is_on() -> None:
    assert set(_IS_ON) == {control for pair in EXCLUSIONS for control in pair}


def test_a_refusal_names_both_and_the_engine() -> None:
    module = TRTModule(streaming_plan(100), name="the one")
    with BY_NAME["enable_profiling"](module), pytest.raises(ValueError, match="cannot be entered") as caught:
        refuse_if([module], "enable_cudagraphs")
    message = str(caught.value)
    assert all(part in message for part in ("enable_cudagraphs", "enable_profiling", "'the one'"))
    assert "\n" not in message


@pytest.mark.parametrize("control", ["enable_output_allocator", "enable_profiling"])
def test_graphs_that_are_on_by_default_count(control: str) -> None:
    module = TRTModule(streaming_plan(100))
    set_cudagraphs_mode(True)
    try:
        with pytest.raises(ValueError, match="enable_cudagraphs is on"):
            BY_NAME[control](module).__enter__()
    finally:
        set_cudagraphs_mode(False)
    with BY_NAME[control](module):
        pass


def test_graphs_of_one_engine_do_not_keep_another_from_it() -> None:
    first, second = TRTModule(streaming_plan(100)), TRTModule(streaming_plan(100))
    with BY_NAME["enable_cudagraphs"](first), BY_NAME["enable_profiling"](second):
        assert first.executors.uses_cuda_graphs
        assert second.executors.modes.profiler is not None
