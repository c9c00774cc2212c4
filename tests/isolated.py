"""Code that could end the process runs in one of its own, so that a crash is one failed test."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import trt_rt

__all__ = ["run"]

_PREAMBLE = """
import gc, pathlib, sys
import torch
from trt_rt import Engine, TRTError, TRTModule
plan = pathlib.Path(sys.argv[1]).read_bytes()
"""


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
    root = str(Path(trt_rt.__file__).parents[1])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-c", _PREAMBLE + textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": search},
    )
