"""Runs ``counted_run.py`` under callgrind and reads what it wrote."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from counted_run import REPEATS

PROGRAM = Path(__file__).resolve().parent / "counted_run.py"
# Not counted: what they cost depends on what the heap has been through, and any change anywhere moves it.
HEAP_FUNCTIONS = ("malloc", "calloc", "realloc", "posix_memalign", "free")
TOTAL = re.compile(r"^summary: (\d+)", flags=re.MULTILINE)


class CountingError(Exception):
    """Counting is not possible here, or what callgrind wrote is not what was asked of it."""


def dump_path(scratch: Path, number: int) -> Path:
    """Where callgrind wrote its dump; the first is number 1."""
    return scratch / f"dumps.{number}"


def run_under_callgrind(scratch: Path, scenarios: Sequence[str]) -> list[str]:
    """Make the calls of the named scenarios, or of all that are counted if none is named.

    Returns
    -------
    list of str
        Names in the order of the dumps, of which each has ``len(REPEATS)``.
    """
    for tool in ("valgrind", "callgrind_annotate"):
        if shutil.which(tool) is None:
            raise CountingError(
                f"{tool} is not installed; install valgrind (apt-get install valgrind) to count"
            )
    names_file = scratch / "names.json"
    program = [sys.executable, str(PROGRAM), str(names_file), *scenarios]
    callgrind = [
        *without_address_randomisation(),
        "valgrind",
        "--tool=callgrind",
        "--collect-atstart=no",
        *(f"--toggle-collect={function}" for function in ("bench_repeat_calls", *HEAP_FUNCTIONS)),
        # Outside the loop the heap functions switch collection on and not off; what they collect is dropped.
        "--zero-before=bench_repeat_calls",
        "--dump-after=bench_repeat_calls",
        "--dump-line=no",
        f"--callgrind-out-file={scratch / 'dumps'}",
    ]
    # First without callgrind: it writes the bytecode files, whose presence moves the heap and with it the
    # hash of every type, and it fails within seconds where there is something to fail.
    run_quietly(program)
    run_quietly([*callgrind, *program])
    names: list[str] = json.loads(names_file.read_text(encoding="utf-8"))
    return names


def run_quietly(command: list[str]) -> None:
    # One thread, and hashes that do not change from run to run: each dict probes the same slots.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        raise CountingError(f"{' '.join(command)} ended with {result.returncode}:\n{result.stderr[-3000:]}")


def without_address_randomisation() -> list[str]:
    """`setarch -R`, which some containers refuse; then counts repeat a little less exactly."""
    prefix = ["setarch", "-R"]
    if shutil.which("setarch") is None:
        return []
    return prefix if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0 else []


def read_totals(scratch: Path, scenario_count: int) -> list[list[int]]:
    """Instructions of each dump: one list a scenario, with one total for each of ``REPEATS``."""
    expected = scenario_count * len(REPEATS)
    if not dump_path(scratch, expected).exists() or dump_path(scratch, expected + 1).exists():
        raise CountingError(
            f"callgrind did not write {expected} dumps: it did not see bench_repeat_calls "
            "(is prepared_call stripped, or was that function inlined?)"
        )
    totals = []
    for number in range(1, expected + 1):
        match = TOTAL.search(dump_path(scratch, number).read_text(encoding="utf-8", errors="replace"))
        if match is None:
            raise CountingError(f"{dump_path(scratch, number).name} has no summary line")
        totals.append(int(match[1]))
    return [totals[start : start + len(REPEATS)] for start in range(0, expected, len(REPEATS))]
