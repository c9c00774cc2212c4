"""Programs that run in a process of their own, because what is tested is how the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.factories.case import Case
from tests.patience import SECONDS_UNTIL_DEADLOCK

__all__ = ["assert_ends_quietly", "run_to_the_end"]

_PRELUDE = """\
import importlib, torch, trt_rt
backend = {backend!r}
if backend is None:
    module, _, name = {factory!r}.partition(":")
    backend = getattr(importlib.import_module(module), name)({kind!r})["backend"]
inputs = tuple(torch.load({inputs!r}))
def new_engine():
    return trt_rt.Engine.load({plan!r}, backend=backend, device={device!r})
"""


def assert_ends_quietly(case: Case, folder: Path, program: str, n: int = 3) -> None:
    """Check that `program`, run as by `run_to_the_end`, ends with status 0 and writes nothing to stderr."""
    ended = run_to_the_end(case, folder, program, n)
    if ended.returncode or ended.stderr:
        pytest.fail(f"the process ended with status {ended.returncode}, stderr:\n{ended.stderr}")


def run_to_the_end(case: Case, folder: Path, program: str, n: int = 3) -> subprocess.CompletedProcess[str]:
    """Run `program` in a process of its own, which may end in any way.

    Parameters
    ----------
    case : Case
        The program finds ``new_engine()``, ``inputs`` and ``backend`` of this case, ``torch`` and ``trt_rt``.
    folder : Path
        For files.
    program : str
        Python source.
    n : int
        Batch of the inputs.

    Returns
    -------
    subprocess.CompletedProcess
        With what it printed; a negative status is the signal that ended it.
    """
    plan, inputs = folder / "engine.plan", folder / "inputs.pt"
    plan.write_bytes(case.plan)
    torch.save(list(case.example(n)), inputs)
    named = case.backend_argument
    prelude = _PRELUDE.format(
        backend=named if isinstance(named, str) else None,
        factory=case.factory.path,
        kind=case.kind,
        plan=str(plan),
        inputs=str(inputs),
        device=str(case.device),
    )
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", prelude + program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
    )
