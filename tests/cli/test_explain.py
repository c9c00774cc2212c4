"""``trt-rt explain``: calls in words, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reference import plans
from trt_rt.cli import main


@pytest.fixture
def plan(tmp_path: Path) -> str:
    (tmp_path / "affine.plan").write_bytes(plans.affine())
    return str(tmp_path / "affine.plan")


def test_a_plan_is_explained(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", plan, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("The call took ")
    assert lines[1].startswith("engine 'affine.plan' (")
    assert main(["explain", plan, "--device", "cpu", "--batch", "1,2", "--mode", "graphs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["engines"][0]["served"] for each in found] == ["replay", "replay"]
    assert [each["engines"][0]["shapes"] for each in found] == ["(1x7)", "(2x7)"]


def test_the_first_call(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", plan, "--device", "cpu", "--mode", "graphs", "--calls", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["engines"][0]["served"] == "capture"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--mode", "bind"], "a bound call only enqueues"),
        (["--mode", "nobody"], "there is no mode 'nobody'"),
        (["--shapes", "x:0x7"], "no profile of the engine admits"),
    ],
)
def test_what_cannot_be_explained(
    plan: str, options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", plan, "--device", "cpu", *options]) == 1
    assert problem in capsys.readouterr().err
    assert main(["explain", f"{plan}.missing"]) == 1
    assert "Traceback" not in capsys.readouterr().err
