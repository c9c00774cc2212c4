"""Which functions the instructions of one call are in: python bench/where.py module_prealloc_1x1."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from callgrind import CountingError, dump_path, run_under_callgrind
from counted_run import REPEATS

# As callgrind_annotate prints it: "51,325 (10.1%)  file:function [object]".
FUNCTION = re.compile(r"^\s*([\d,]+) \([ \d.]+%\)\s+(\S.*)$", flags=re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show in which functions the instructions of one call are.")
    parser.add_argument("scenario", help="a row of make count")
    parser.add_argument("--lines", type=int, default=40, help="how many functions to show")
    options = parser.parse_args()
    try:
        rows = functions_of(options.scenario)
    except CountingError as error:
        print(f"bench/where.py: {error}", file=sys.stderr)
        return 2
    print(f"Instructions a call of {options.scenario}, each function without those that it calls:")
    for count, function in rows[: options.lines]:
        print(f"{count:8.1f}  {function}")
    return 0


def functions_of(scenario: str) -> list[tuple[float, str]]:
    """Instructions a call and function, the largest first."""
    with tempfile.TemporaryDirectory(prefix="trt_rt_where_") as scratch:
        names = run_under_callgrind(Path(scratch), [scenario])
        last = dump_path(Path(scratch), len(names) * len(REPEATS))
        command = ["callgrind_annotate", "--threshold=100", str(last)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [(int(count.replace(",", "")), function) for count, function in FUNCTION.findall(report)]
    # Whatever runs around the loop has all of its instructions: the first row, the total, and its like.
    total = rows[0][0]
    return [(count / REPEATS[-1], function) for count, function in rows if count < total]


if __name__ == "__main__":
    sys.exit(main())
