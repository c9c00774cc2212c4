"""The budgets of instructions a call: what is allowed ever, and what was counted last, by platform."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

ALLOWED_RISE = 0.02
WORTH_LOWERING = 0.05


@dataclass(frozen=True)
class Verdict:
    """The result of comparing counts with budgets.

    Attributes
    ----------
    table : str
        Every count beside its budget, for people.
    notes : list of str
        Sentences that fail nothing.
    failures : list of str
        Sentences that name the scenario, the budget and the count; empty when all is well.
    """

    table: str
    notes: list[str]
    failures: list[str]


@dataclass(frozen=True)
class Budgets:
    """The contents of ``budgets.json``.

    Attributes
    ----------
    ceilings : dict of str to int
        Limits that hold on every platform, by the names of :func:`ceiling_values`.
    platforms : dict of str to dict
        By platform key: instructions of one call by scenario.
    """

    ceilings: dict[str, int]
    platforms: dict[str, dict[str, int]]

    def with_platform(self, key: str, counts: dict[str, int]) -> Budgets:
        return replace(self, platforms={**self.platforms, key: counts})

    def save(self, path: Path) -> None:
        contents = {"ceilings": self.ceilings, "platforms": dict(sorted(self.platforms.items()))}
        path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")

    def check(self, key: str, counts: dict[str, int]) -> Verdict:
        """Compare `counts` with the ceilings, and with the budgets of platform `key` if there are any."""
        kept = self.platforms.get(key)
        notes, failures = [], self._above_ceilings(counts)
        if kept is None:
            known = ", ".join(self.platforms) or "none"
            notes.append(f"No budgets for {key} (known: {known}): only the ceilings were checked.")
        else:
            failures += _risen(key, counts, kept) + _without_partner(key, counts, kept)
            notes += _fallen(key, counts, kept)
        return Verdict(self._table(key, counts), notes, failures)

    def _above_ceilings(self, counts: dict[str, int]) -> list[str]:
        return [
            f"{name}: {value:.0f} instructions, and at most {self.ceilings[name]} are allowed on any platform"
            for name, value in ceiling_values(counts).items()
            if value > self.ceilings[name]
        ]

    def _table(self, key: str, counts: dict[str, int]) -> str:
        kept = self.platforms.get(key, {})
        lines = [f"Instructions a call on {key}:", f"  {'':34}{'counted':>9}{'budget':>9}"]
        lines += [f"  {name:34}{count:9}{kept.get(name, '-'):>9}" for name, count in counts.items()]
        lines.append(f"  {'':34}{'':>9}{'ceiling':>9}")
        lines += [
            f"  {name:34}{value:9.0f}{self.ceilings[name]:>9}"
            for name, value in ceiling_values(counts).items()
        ]
        return "\n".join(lines)


def ceiling_values(counts: dict[str, int]) -> dict[str, float]:
    """The quantities that have a ceiling, from the counts of single scenarios."""
    executor = counts["executor_prealloc_1x1"]
    return {
        "executor, 1 input, 1 output": executor,
        "each further input": (counts["executor_prealloc_4x1"] - executor) / 3,
        "module on top of executor": counts["module_prealloc_1x1"] - executor,
        "bind": counts["bind_1x1"],
    }


def _risen(key: str, counts: dict[str, int], kept: dict[str, int]) -> list[str]:
    return [
        f"{name}: {count} instructions a call, {count / kept[name] - 1:.1%} over its budget of {kept[name]} "
        f"on {key} (allowed: {ALLOWED_RISE:.0%}). Make it cheaper, or say in the commit why it must cost "
        "more and run: python bench/count.py --update"
        for name, count in counts.items()
        if name in kept and count > kept[name] * (1 + ALLOWED_RISE)
    ]


def _fallen(key: str, counts: dict[str, int], kept: dict[str, int]) -> list[str]:
    return [
        f"{name}: {count} instructions a call, {1 - count / kept[name]:.1%} under its budget of {kept[name]} "
        f"on {key}. Keep what was won: python bench/count.py --update"
        for name, count in counts.items()
        if name in kept and count < kept[name] * (1 - WORTH_LOWERING)
    ]


def _without_partner(key: str, counts: dict[str, int], kept: dict[str, int]) -> list[str]:
    new = [f"{name} was counted and has no budget on {key}" for name in counts if name not in kept]
    gone = [f"{name} has a budget on {key} and was not counted" for name in kept if name not in counts]
    return [f"{problem}. Run: python bench/count.py --update" for problem in new + gone]


def load(path: Path) -> Budgets:
    """Read ``budgets.json``."""
    contents = json.loads(path.read_text(encoding="utf-8"))
    return Budgets(contents["ceilings"], contents["platforms"])
