"""The C++ operator over the engines of the plan factory that TRT_RT_PLAN_FACTORY names."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.deploy.building import Run

NAMED = os.environ.get("TRT_RT_PLAN_FACTORY", "")


@pytest.mark.skipif(
    not NAMED or NAMED.startswith("tests."), reason="TRT_RT_PLAN_FACTORY names no factory of TensorRT engines"
)
def test_results(run: Run) -> None:
    result = run(
        *(sys.executable, "-m", "tests.deploy.run_factory", NAMED),
        PYTHONPATH=os.environ.get("PYTHONPATH", "") or os.getcwd(),
        **{name: value for name, value in os.environ.items() if name.startswith("TRT_RT_TENSORRT")},
    )
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout.splitlines()[-1])
    assert {kind: answer for kind, answer in answers.items() if answer not in ("right", "none")} == {}
    assert "right" in answers.values()
