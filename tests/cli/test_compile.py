"""``trt-rt compile`` and ``trt-rt cache``."""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

import trt_rt
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


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_in_an_exported_program_does_not_run_without_trust(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    torch.export.save(
        torch.export.export(model, (torch.ones(3, 4),), dynamic_shapes=({0: batch},)), folder / "good.pt2"
    )
    marker = folder / "it ran"
    with (
        zipfile.ZipFile(folder / "good.pt2") as good,
        zipfile.ZipFile(folder / "bad.pt2", "w", zipfile.ZIP_STORED) as bad,
    ):
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("models/model.json"):
                # torch.export.load evaluates the text of a size.
                code = f"__import__('pathlib').Path({str(marker)!r}).touch() or "
                content = content.replace(b'"expr_str": "', f'"expr_str": "{code}'.encode())
            bad.writestr(name, content)
    assert main(["compile", "bad.pt2", "--dryrun", "--backend", "reference"]) == 1
    error = capsys.readouterr().err
    assert "models/model.json" in error  # and not the container
    assert "--trust reads it" in error
    assert not marker.exists()
    main(["compile", "bad.pt2", "--dryrun", "--backend", "reference", "--trust"])
    assert marker.exists()
    capsys.readouterr()
    for more in ([], ["--trust"]):
        assert main(["compile", "good.pt2", "--dryrun", "--backend", "reference", *more]) == 0
        assert capsys.readouterr().out.startswith("1 engine of reference with 3 operators")


def test_a_compiled_program_is_not_compiled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "models_of_the_test:split", "-o", "program.pt2"]) == 0
    capsys.readouterr()
    assert main(["compile", "program.pt2"]) == 1
    assert "is a compiled program: trt_rt.load runs it" in capsys.readouterr().err


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


def _save_script(path: Path) -> torch.nn.Module:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript's age
        torch.jit.save(torch.jit.trace(model, torch.ones(3, 4)), path)
    return model


@pytest.mark.parametrize("given", ["3x4", "1x4:3x4:8x4", "1x4:3x4:8x4@float32"])
def test_a_torchscript_file_is_compiled_for_the_inputs_of_the_shell(
    folder: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    _save_script(folder / "model.ts")
    assert main(["compile", "model.ts", "--inputs", given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["engines"] == 1
    (shape,) = [tensor["shape"] for tensor in found["steps"][0]["inputs"]]
    assert isinstance(shape[0], str) == (":" in given)


def test_a_callable_may_return_the_model_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", "models_of_the_test:Split", "--dryrun", "--json", "--inputs", "x=1x4:3x4:8x4"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["engines"] == 2
    assert main(["compile", "models_of_the_test:Split", "--dryrun"]) == 1
    assert "returns a model without inputs: give --inputs" in capsys.readouterr().err


def test_an_exported_program_needs_no_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "def exported():\n    return torch.export.export(Split(), (torch.ones(3, 4),))\n"
    (folder / "exported_model_of_the_test.py").write_text(f"{_SOURCE}\n{code}")
    assert main(["compile", "exported_model_of_the_test:exported", "--dryrun", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"] == 2


def test_a_model_that_cannot_be_exported_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "linear_of_the_test.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(4, 2)\n"
    )
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log = logging.getLogger("torch._subclasses.fake_tensor")
    log.addHandler(handler)
    try:
        assert main(["compile", "linear_of_the_test:net", "--dryrun", "--inputs", "2x5"]) == 1
    finally:
        log.removeHandler(handler)
    assert "[2, 5] X [4, 2]" in capsys.readouterr().err
    assert not records  # PyTorch logs the traceback of a failing operator


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_inputs_of_an_exported_program_are_its_profile(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    exported = torch.export.export(model, (torch.ones(3, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, folder / "model.pt2")
    assert main(["compile", "model.pt2", "--dryrun", "--inputs", "2x4:3x4:4x4"]) == 0
    capsys.readouterr()
    for given, message in {
        "2x4:3x4:16x4": "right from 1 to 8",
        "2x5:3x5:4x5": "dimension 1 of 'input' is always 4",
        "inptu=2x4": "did you mean 'input'?",
        "2x4@float16": "is torch.float32 in the exported program",
        "2": "has 2 dimensions",
    }.items():
        assert main(["compile", "model.pt2", "--dryrun", "--inputs", given]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["3x4@flaot32"], "did you mean float32?"),
        (["4x4:3x4:8x4"], "breaks min <= opt <= max"),
        (["x=3x4", "x=3x4"], "names 'x' twice"),
        ([], "give --inputs"),
    ],
)
def test_inputs_that_are_wrong_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    _save_script(folder / "model.ts")
    assert main(["compile", "model.ts", *(["--inputs", *given] if given else [])]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("given", ["3xx4", "3x4:3x4", "3x4@", "-3x4"])
def test_an_input_that_cannot_be_read_is_a_wrong_use(
    folder: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compile", "models_of_the_test:split", "--inputs", given])
    assert caught.value.code == 2
    assert "is not [NAME=]SHAPE" in capsys.readouterr().err or given.startswith("-")


def test_a_file_that_is_no_torchscript_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.ts").write_bytes(b"x")
    assert main(["compile", "model.ts", "--inputs", "3x4"]) == 1
    assert "is no TorchScript module that can be read" in capsys.readouterr().err


def test_a_program_is_saved_where_the_user_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = _save_script(folder / "model.ts")
    assert main(["compile", "model.ts", "--inputs", "1x4:3x4:8x4", "-o", "program.pt2"]) == 0
    x = torch.randn(5, 4)
    with torch.no_grad():
        torch.testing.assert_close(trt_rt.load(folder / "program.pt2")(x), model(x))
    capsys.readouterr()
    for arguments, message in (
        (["-o", "model.ts"], "is the model, and the program would replace it"),
        (["-o", "nowhere/program.pt2"], "there is no folder"),
        (["-o", "other.pt2", "--dryrun"], "--dryrun builds nothing"),
    ):
        assert main(["compile", "model.ts", "--inputs", "3x4", *arguments]) == 1
        assert message in capsys.readouterr().err
    assert not (folder / "other.pt2").exists()
