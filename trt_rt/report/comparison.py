"""The comparison of two results of one machine."""

from __future__ import annotations

from dataclasses import dataclass

from trt_rt.errors import SettingError
from trt_rt.report.machine import same_machine
from trt_rt.report.result import Case, Result

__all__ = ["Change", "compare"]


@dataclass(frozen=True)
class Change:
    """How the time until a call returns has changed.

    Attributes
    ----------
    name : str
        Mode and shapes.
    before, after : float
        Medians in microseconds.
    low, high : float
        The smallest and the largest change that the confidence intervals of both medians allow, as a share:
        0.1 is ten percent slower.
    """

    name: str
    before: float
    after: float
    low: float
    high: float

    @property
    def change(self) -> float:
        """Of the medians, as a share: 0.1 is ten percent slower."""
        return self.after / self.before - 1

    def is_slower_than(self, limit: float) -> bool:
        """Return whether the median rose by more than `limit`, and by more than the noise explains."""
        return self.change > limit and self.low > 0


def compare(before: Result, after: Result) -> tuple[Change, ...]:
    """Compare the cases that two results have in common.

    Parameters
    ----------
    before, after : Result
        Of the same target on the same machine.

    Returns
    -------
    tuple of Change
        In the order of `after`.

    Raises
    ------
    SettingError
        The machines differ, or the results have no case in common.
    """
    if difference := same_machine(before.machine, after.machine):
        raise SettingError(
            f"these results are of different machines, and cannot be compared: {difference}. "
            "Measure both on one."
        )
    earlier = {case.name: case for case in before.cases}
    changes = tuple(_change(earlier[case.name], case) for case in after.cases if case.name in earlier)
    if not changes:
        raise SettingError(
            f"these results have no mode and shapes in common: {sorted(earlier)} and "
            f"{sorted(case.name for case in after.cases)}."
        )
    return changes


def _change(before: Case, after: Case) -> Change:
    return Change(
        after.name,
        before.host.median,
        after.host.median,
        after.host.low / before.host.high - 1,
        after.host.high / before.host.low - 1,
    )
