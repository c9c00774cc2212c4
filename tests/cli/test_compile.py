"""``trt-rt compile`` and ``trt-rt cache``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trt_rt.cli import main

_SOURCE = """
import torch

class Split(torch.nn.Module):
    def forward(self, x):
        y = torch.relu(x * 2 + 1)
        return torch.exp(torch.fft.fft(y).real * 2 - 1)

def split():
    return Split(), (torch.ones(3, 4),), ({0: torch.export.Dim("batch", min=1, max=8)},)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models_of_the_test.py").write_text(_SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRT_RT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_a_dry_run_prints_the_partition(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "models_of_the_test:split", "--dryrun", "--backend", "reference"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 engines of reference with 7 operators, 2 operators in PyTorch; split by ")
    assert "split by aten.fft_fft.default at File" in printed
    assert "complex64 is not computed in engines" in " ".join(printed.replace("│", " ").split())
    assert not (folder / "cache").exists()


def test_a_partition_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "models_of_the_test:split", "--dryrun", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["engines"] == 2
    engine = found["steps"][0]
    assert engine["operators"] == ["aten.mul.Tensor", "aten.add.Tensor", "aten.relu.default"]
    assert engine["inputs"][0]["dtype"] == "float32"
    (split,) = [step for step in found["steps"] if step.get("splits")]
    assert "torch.fft.fft(y)" in split["source"]


def test_a_compiled_program_is_in_the_cache(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "models_of_the_test:split"]) == 0
    capsys.readouterr()
    assert main(["cache", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(folder / "cache")
    assert [(entry["model"], entry["engines"]) for entry in found["programs"]] == [("Split", 2)]
    assert main(["cache", "list"]) == 0
    assert "Split" in capsys.readouterr().out
    assert main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 1
    assert main(["cache", "list"]) == 0
    assert "0 programs" in capsys.readouterr().out


def test_a_damaged_entry_is_listed_and_cleared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cache").mkdir()
    (folder / "cache" / "00.program").write_bytes(b"x")
    assert main(["cache", "list"]) == 0
    assert "(damaged)" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert not list((folder / "cache").glob("*.program"))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_exported_program_is_compiled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
    torch.export.save(torch.export.export(model, (torch.ones(3, 4),)), folder / "model.pt2")
    assert main(["compile", "model.pt2", "--dryrun", "--backend", "reference"]) == 0
    assert capsys.readouterr().out.startswith("1 engine of reference with 3 operators")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pt2"], "no exported program that can be read"),
        (["models_of_the_test:split", "--torch-executed-ops", "aten.rleu"], "did you mean aten.relu"),
        (["models_of_the_test:split", "--require-full-compilation"], "PyTorch would run aten.fft_fft"),
    ],
)
def test_errors_are_sentences(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["compile", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("trt-rt: ")
    assert message in error
