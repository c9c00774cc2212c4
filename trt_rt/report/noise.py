"""Warnings about conditions that make the numbers unreliable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_rt.report.result import Case

__all__ = ["notes_about"]

_BUSY = 0.5
_WIDE = 0.05
_DRIFT = 0.6


def notes_about(cases: Sequence[Case], machine: dict[str, Any]) -> tuple[str, ...]:
    """Return sentences about noise that makes comparisons meaningless.

    Parameters
    ----------
    cases : sequence of Case
        What was measured.
    machine : dict
        See `describe_machine`.

    Returns
    -------
    tuple of str
        Empty if nothing speaks against the numbers.
    """
    notes = []
    governor = machine.get("governor")
    if governor not in (None, "performance"):
        notes.append(
            f"The processor's governor is {governor!r}: clocks change with the load. Use 'performance'."
        )
    if machine["load"] > _BUSY:
        notes.append(
            f"{machine['load']:.0%} of the machine's processors were busy in the minute before: "
            "other programs took time from it."
        )
    wide = [case.name for case in cases if case.host.high - case.host.low > _WIDE * case.host.median]
    if wide:
        notes.append(
            f"Rounds of {_list(wide)} differ so much that the median is known to no better than {_WIDE:.0%}: "
            "compare nothing closer than that, or measure longer."
        )
    drifting = [case.name for case in cases if abs(_correlation(case.host.round_medians)) > _DRIFT]
    if drifting:
        notes.append(
            f"{_list(drifting)} became steadily slower or faster during the measurement, as clocks do that "
            "rise or throttle."
        )
    return tuple(notes)


def _correlation(medians: tuple[float, ...]) -> float:
    """Return Spearman's rank correlation of the rounds' medians with time; 0 where it is not defined."""
    if len(medians) < 3 or len(set(medians)) < 2:
        return 0.0
    from scipy.stats import spearmanr

    return float(spearmanr(range(len(medians)), medians).statistic)


def _list(names: Sequence[str]) -> str:
    shown = "; ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
