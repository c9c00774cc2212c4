"""Instructions a call, counted with callgrind and held against bench/budgets.json.

    python bench/count.py            count, compare, exit 1 if something rose
    python bench/count.py --update   count, and make these counts the budgets of this platform

Times on shared machines do not repeat; instruction counts do. README.md beside this file says how to
read them.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import budgets
import torch
from callgrind import CountingError, read_totals, run_under_callgrind
from counted_run import CALLS, EMPTY_LOOP

BUDGETS_FILE = Path(__file__).resolve().parent / "budgets.json"


def main() -> int:
    parser = argparse.ArgumentParser(description="Count instructions a call and compare with the budgets.")
    parser.add_argument("--update", action="store_true", help="write the counts into bench/budgets.json")
    options = parser.parse_args()
    try:
        counts = count_instructions()
    except CountingError as error:
        print(f"bench/count.py: {error}", file=sys.stderr)
        return 2
    key = platform_key()
    kept = budgets.load(BUDGETS_FILE)
    if options.update:
        kept = kept.with_platform(key, counts)
        kept.save(BUDGETS_FILE)
    verdict = kept.check(key, counts)
    print(verdict.table)
    for note in verdict.notes:
        print(note)
    for failure in verdict.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if verdict.failures else 0


def platform_key() -> str:
    """Return what instruction counts depend on, besides the code: Python, PyTorch build, instruction set."""
    implementation = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{implementation}-torch{torch.__version__}-{platform.machine()}"


def count_instructions() -> dict[str, int]:
    """Instructions of one call in the steady state, by scenario, without the loop that makes the calls."""
    with tempfile.TemporaryDirectory(prefix="trt_rt_count_") as scratch:
        names = run_under_callgrind(Path(scratch), [])
        totals = read_totals(Path(scratch), len(names))
    per_call = {name: (twice - once) / CALLS for name, (_, once, twice) in zip(names, totals, strict=True)}
    baseline = per_call.pop(EMPTY_LOOP)
    return {name: round(count - baseline) for name, count in per_call.items()}


if __name__ == "__main__":
    sys.exit(main())
