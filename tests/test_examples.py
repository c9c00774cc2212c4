"""Every script of examples/ runs, on the GPU where there is one, and checks its own results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import SECONDS_UNTIL_DEADLOCK

_ROOT = Path(__file__).parent.parent
_EXAMPLES = sorted((_ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(_ROOT),
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip(), "an example says what it has done"


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"Run it: python examples/{path.name}\n" in text
