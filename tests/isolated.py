"""Code that could end the process runs in one of its own, so that a crash is one failed test."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import trt_rt
from tests.patience import SECONDS_UNTIL_DEADLOCK

__all__ = ["environment", "printed_by", "run", "run_python"]

_PREAMBLE = """
import gc, pathlib, sys
import torch
from trt_rt import Engine, TRTError, TRTModule
plan = pathlib.Path(sys.argv[1]).read_bytes()
"""


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment, with changes, in which other processes import this trt_rt."""
    root = str(Path(trt_rt.__file__).parents[1])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": search, **changes}


def run_python(code: str, *arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in another process.

    Parameters
    ----------
    code : str
        Dedented first.
    *arguments : str or Path
        The code finds them in ``sys.argv[1:]``.
    **changes : str
        Variables for `environment`.

    Returns
    -------
    subprocess.CompletedProcess
        With the output; the exit status is not checked.
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
        env=environment(**changes),
    )


def printed_by(code: str, *arguments: str | Path, **changes: str) -> str:
    """Return what code prints that runs as by `run_python`, and must neither fail nor warn."""
    done = run_python(code, *arguments, **changes)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run(code: str, plan: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `code`, which finds the plan as ``plan`` and torch, gc, Engine, TRTModule and TRTError imported.

    Parameters
    ----------
    code : str
        Dedented first.
    plan : bytes
        Written to `folder`, so that the process need not build one.
    folder : Path
        For the plan.

    Returns
    -------
    subprocess.CompletedProcess
        With what it printed; the exit status is not checked.
    """
    path = folder / "isolated.plan"
    path.write_bytes(plan)
    return run_python(_PREAMBLE + textwrap.dedent(code), path)
