"""``trt-rt bench``: measure, write, compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import trt_rt
from tests.reference import plans
from trt_rt.cli import main

QUICK = ["--duration", "0.01", "--warmUp", "50", "--threads", "0", "--modes", "fresh,bind"]

_SOURCE = """
import torch

def relu():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval(), (torch.ones(2, 3),)
"""


@pytest.fixture
def plan(tmp_path: Path) -> str:
    (tmp_path / "affine.plan").write_bytes(plans.affine())
    return str(tmp_path / "affine.plan")


def test_a_plan_is_measured_written_and_compared(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, page = str(tmp_path / "r.json"), tmp_path / "r.html"
    assert main(["bench", plan, *QUICK, "-o", result, "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "fresh" in printed
    assert "bind" in printed
    assert "median" in printed
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["bench", plan, *QUICK, "--compare", result, "--fail-above", "9999%", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [change["name"].split(",")[0] for change in found["changes"]] == ["fresh", "bind"]
    assert [case["mode"] for case in found["cases"]] == ["fresh", "bind"]


def test_what_became_slower_fails(plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    assert main(["bench", plan, *QUICK, "-o", str(path)]) == 0
    before = json.loads(path.read_text())
    for case in before["cases"]:
        for name in ("median", "low", "high"):
            case["host"][name] /= 100
    path.write_text(json.dumps(before))
    assert main(["bench", plan, *QUICK, "--compare", str(path), "--fail-above", "50%"]) == 1
    assert "slower than before by more than 50.0%" in capsys.readouterr().err


def test_batches_and_shapes_are_measured_in_turn(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", plan, *QUICK, "--batch", "1,2", "--json"]) == 0
    shapes = [case["shapes"] for case in json.loads(capsys.readouterr().out)["cases"]]
    assert len(set(shapes)) == 2
    assert main(["bench", plan, *QUICK, "--shapes", "nobody:1"]) == 1
    assert "there is no input 'nobody'" in capsys.readouterr().err


def test_a_model_is_compared_with_eager_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models_to_measure.py").write_text(_SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRT_RT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("trt_rt.report.peers.torch_compile", lambda model: _absent("torch.compile"))
    options = ["--duration", "0.01", "--warmUp", "50", "--threads", "0", "--backend", "reference", "--json"]
    assert main(["bench", "models_to_measure:relu", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {case["mode"] for case in found["cases"]} >= {"fresh", "whole-program", "eager PyTorch"}
    assert found["partition"]
    assert main(["bench", "models_to_measure:relu", *options, "--batch", "2"]) == 1
    assert "gives its own example inputs" in capsys.readouterr().err


def _absent(name: str) -> object:
    from trt_rt.report import Peer

    def make(workload: object) -> object:
        raise ImportError("left out: it compiles for seconds")

    return Peer(name, make)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modes", "nothing"], "there is no mode 'nothing'; the modes are fresh,"),
        (["--modes", "fresh", "--useCudaGraph"], "--useCudaGraph leaves none"),
        (["--fail-above", "5%"], "--fail-above needs --compare"),
        (["--compare", "absent.json"], "absent.json: No such file"),
        (["--html", "absent/report.html"], "absent/report.html"),
        (["--shapes", "x"], "is not NAME:SIZExSIZE"),
        (["--batch", "1000000"], "no profile of the engine admits"),
    ],
)
def test_a_wrong_request_is_a_sentence(
    arguments: list[str], message: str, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", plan, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [["--fail-above", "5"], ["--threads", "x"], ["--threads", "100000"], ["--duration", "-1"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], plan: str) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["bench", plan, *arguments])
    assert exit.value.code == 2


def test_targets_that_do_not_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.plan").write_bytes(b"nothing")
    for target in (
        str(tmp_path / "no.plan"),
        str(tmp_path / "absent"),
        str(tmp_path / "absent.onnx"),
        "os:absent",
    ):
        assert main(["bench", target, *QUICK]) == 1
        assert "Traceback" not in capsys.readouterr().err


def test_an_interrupt_is_130_and_keeps_the_result(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    monkeypatch.setattr("trt_rt.cli.bench._progress", lambda: interrupt)
    path = tmp_path / "r.json"
    assert main(["bench", plan, *QUICK, "-o", str(path)]) == 130
    assert json.loads(path.read_text())["interrupted"] is True
    assert "was interrupted" in capsys.readouterr().out


def test_a_saved_program_is_measured_and_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRT_RT_CACHE_DIR", str(tmp_path / "cache"))
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval()
    batches = trt_rt.Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(8, 3))
    path = str(tmp_path / "model.pt2")
    trt_rt.save(trt_rt.compile(model, inputs=[batches], backend="reference", min_block_size=1), path)
    options = ["--duration", "0.01", "--warmUp", "50", "--threads", "0", "--modes", "fresh,whole-program"]
    assert main(["bench", path, *options, "--batch", "1,5", "--json"]) == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert [(case["mode"], case["shapes"]) for case in cases] == [
        ("fresh", "1x3"),
        ("whole-program", "1x3"),
        ("fresh", "5x3"),
        ("whole-program", "5x3"),
    ]
    assert main(["explain", path, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["shapes"] == "2x3"
    assert found["engines"][0]["engine"] == "engine_0"
    for wrong, problem in (("nobody:1", "there is no input 'nobody'"), ("input_1:4x4", "does not fit input")):
        assert main(["bench", path, *options, "--shapes", wrong]) == 1
        assert problem in capsys.readouterr().err
