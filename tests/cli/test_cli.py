"""The command ``trt-rt``: exit codes, errors as sentences, JSON."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
from torch.export import Dim

import trt_rt
from tests.reference import plans
from trt_rt import __version__, reference
from trt_rt.backend import identify_plan
from trt_rt.cli import main
from trt_rt.compiler import export_onnx
from trt_rt.errors import BackendError


@pytest.fixture
def demo_packages() -> None:
    for package in ("sklearn", "rich"):
        pytest.importorskip(package, reason=f"{package}, which the demo needs, is not installed")


def fail_with(error: Exception) -> Any:
    def run_demo(calls: int) -> NoReturn:
        raise error

    return run_demo


class TestUsage:
    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["--version"])
        assert capsys.readouterr().out == f"trt_rt {__version__}\n"

    @pytest.mark.parametrize("arguments", [[], ["fly"], ["demo", "--calls", "0"], ["demo", "--calls", "x"]])
    def test_wrong_usage_exits_with_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match=r"^2$"):
            main(arguments)
        assert "usage: trt-rt" in capsys.readouterr().err

    def test_importing_the_command_imports_nothing_that_only_a_subcommand_needs(self) -> None:
        code = "import sys, trt_rt.cli; print(sorted({'sklearn', 'rich', 'onnx'} & set(sys.modules)))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"


@pytest.mark.usefixtures("demo_packages")
class TestDemo:
    def test_json_is_one_object_with_everything(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["demo", "--json", "--calls", "5"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["engine"]["backend"] in found["backends"]
        assert found["images"] == 360
        assert {latency["batch_size"] for latency in found["latency"]} == set(found["batch_sizes"])
        assert all(mode["accuracy"] >= 0.97 for mode in found["agreement"])

    def test_an_error_is_a_sentence_and_exit_code_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("trt_rt.demo.run.run_demo", fail_with(BackendError("no backend works here")))
        assert main(["demo"]) == 1
        captured = capsys.readouterr()
        assert captured.err == "trt-rt: no backend works here\n"
        assert captured.out == ""

    def test_an_unexpected_error_points_to_debug(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("trt_rt.demo.run.run_demo", fail_with(ZeroDivisionError("oh")))
        assert main(["demo"]) == 1
        error = capsys.readouterr().err
        assert "unexpected ZeroDivisionError: oh" in error
        assert "--debug" in error
        assert "Traceback" not in error

    def test_debug_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trt_rt.demo.run.run_demo", fail_with(BackendError("no backend works here")))
        with pytest.raises(BackendError, match="no backend works here"):
            main(["demo", "--debug"])

    def test_a_mode_that_disagrees_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        report = SimpleNamespace(disagreeing_modes=["bind"], as_json=dict)
        monkeypatch.setattr("trt_rt.demo.run.run_demo", lambda calls: report)
        assert main(["demo", "--json"]) == 1
        captured = capsys.readouterr()
        assert json.loads(captured.out) == {}
        assert "bind" in captured.err


@pytest.mark.parametrize(("module", "package"), [("rich.console", "rich"), ("sklearn.datasets", "sklearn")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("trt_rt.demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert f"the demo needs the package {package}" in error
    assert "pip install 'trt_rt[demo]'" in error


@pytest.mark.parametrize("command", ["bench", "explain"])
def test_a_missing_package_of_the_measurements_is_named_too(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("trt_rt.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("trt_rt.report", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert main([command, "model.pt2"]) == 1
    error = capsys.readouterr().err
    assert f"trt-rt {command} needs the package numpy" in error
    assert "pip install 'trt_rt[bench]'" in error


def test_a_file_to_serve_that_is_not_there_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "missing.pt2"]) == 1
    assert capsys.readouterr().err == "trt-rt: missing.pt2: this is not there, or is no file\n"


class TestDoctor:
    def test_json_tells_the_truth_about_this_machine(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["python"] == platform.python_version()
        assert found["torch"] == torch.__version__
        assert len(found["gpus"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
        assert bool(found["gpus"]) != bool(found["no_gpu"])
        assert (found["driver"]["cuda"] is None) != (found["driver"]["problem"] is None)
        for name, status in trt_rt.backends().items():
            told = found["backends"][name]
            assert told["version"] == status.version
            assert (told["can_build"], told["can_run"]) == (status.can_build, status.can_run)
            assert told["reason"] == status.reason

    @pytest.mark.parametrize("with_rich", [True, False])
    def test_a_table_has_every_backend(
        self, with_rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if with_rich:
            pytest.importorskip("rich", reason="rich is not installed")
        else:
            monkeypatch.delitem(sys.modules, "trt_rt.cli.console", raising=False)
            monkeypatch.setitem(sys.modules, "rich.console", None)
            monkeypatch.setitem(sys.modules, "rich.table", None)
        assert main(["doctor"]) == 0
        printed = capsys.readouterr().out
        assert ("┃" in printed) == with_rich
        for status in trt_rt.backends().values():
            row = next(line for line in printed.splitlines() if status.name in line.replace("│", " ").split())
            assert (status.version or "-") in row
            assert ("yes" in row) == (status.can_build or status.can_run)
        assert platform.python_version() in printed
        assert str(torch.__version__) in printed


MODELS = """
import torch
from torch.export import Dim

class Network(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x) + 1

def static():
    return Network(), (torch.zeros(2, 4),)

def dynamic():
    return Network(), (torch.zeros(2, 4),), ({0: Dim("batch", min=1, max=8)},)

def options():
    return {"model": Network(), "arg_inputs": (torch.zeros(2, 4),), "input_names": ["mine"]}

def number():
    return 3

def failing():
    raise ZeroDivisionError("this model is broken")

not_callable = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module of models."""
    (tmp_path / "trt_rt_test_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("trt_rt_test_models", None)


def builders() -> list[str]:
    names = ("tensorrt", "tensorrt_rtx", "reference")
    return [name for name in names if trt_rt.backends()[name].can_build]


class TestBuild:
    @pytest.mark.parametrize("backend", builders())
    @pytest.mark.parametrize("model", ["static", "dynamic", "options"])
    def test_a_model_becomes_a_plan(
        self, model: str, backend: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = folder / "model.plan"
        arguments = ["-o", str(path), "--backend", backend, "--json"]
        assert main(["build", f"trt_rt_test_models:{model}", *arguments]) == 0
        found = json.loads(capsys.readouterr().out)
        kind = identify_plan(path.read_bytes())
        assert found == {"file": str(path), "bytes": path.stat().st_size, "kind": kind.description}
        assert backend in kind.backends
        assert sorted(p.name for p in folder.iterdir() if p.is_file()) == [
            "model.plan",
            "trt_rt_test_models.py",
        ]

    def test_what_was_built_runs(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["-o", "model.plan", "--backend", "reference"]
        assert main(["build", "trt_rt_test_models:dynamic", *arguments]) == 0
        assert capsys.readouterr().out.startswith("model.plan: ")
        module = trt_rt.TRTModule(folder / "model.plan", device="cpu")
        for batch in (1, 8):
            x = torch.randn(batch, 4)
            assert torch.equal(module(x), torch.relu(x) + 1)

    def test_an_onnx_file_with_two_profiles(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        if "tensorrt_rtx" not in builders():
            pytest.skip(trt_rt.backends()["tensorrt_rtx"].reason)
        batch = {0: Dim("batch", min=1, max=8)}
        program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 4),), dynamic_shapes=(batch,))
        model = export_onnx(program, input_names=["input"], output_names=["output"])
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        profiles = ["--profile", "input=1x4:2x4:4x4", "--profile", "input=4x4:8x4:8x4"]
        arguments = ["model.onnx", "-o", "model.plan", "--backend", "tensorrt_rtx", *profiles]
        assert main(["build", *arguments, "--compute-capability", "8.6"]) == 0
        assert "a TensorRT-RTX plan of version" in capsys.readouterr().out

    def test_options_are_handed_on(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, Any] = {}

        def build(model: Any, **options: Any) -> bytes:
            given.update(options)
            return plans.affine()

        monkeypatch.setattr(trt_rt, "build", build)
        arguments = ["trt_rt_test_models:options", "-o", "a.plan", "--precision", "fp16", "--refittable"]
        arguments += ["--version-compatible", "--weight-streaming"]
        arguments += ["--workspace-bytes", "1024", "--optimization-level", "2", "--timing-cache", "cache"]
        arguments += ["--profile", "mine=1:2:3,s=::", "--compute-capability", "8.6", "--backend", "tensorrt"]
        assert main(["build", *arguments]) == 0
        given.pop("arg_inputs")
        assert given == {
            "input_names": ["mine"],
            "precision": "fp16",
            "refittable": True,
            "version_compatible": True,
            "weight_streaming": True,
            "workspace_bytes": 1024,
            "optimization_level": 2,
            "timing_cache": str(folder / "cache"),
            "profiles": [{"mine": ((1,), (2,), (3,)), "s": ((), (), ())}],
            "compute_capabilities": [(8, 6)],
            "backend": "tensorrt",
        }

    @pytest.mark.parametrize(
        ("model", "says"),
        [
            ("trt_rt_test_models:number", "returned int: it must return (model, arg_inputs)"),
            ("trt_rt_test_models:missing", "has no callable 'missing'"),
            ("trt_rt_test_models:not_callable", "has no callable 'not_callable'"),
            ("trt_rt_test_models:failing", "raised ZeroDivisionError: this model is broken"),
            ("trt_rt_no_such_module:f", "there is no Python module 'trt_rt_no_such_module'"),
            ("neither", "it is not module:callable either"),
            ("missing.onnx", "there is no ONNX file 'missing.onnx'"),
            ("corrupt.onnx", "it may be empty or truncated"),
        ],
    )
    def test_a_model_that_is_none(
        self, model: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "corrupt.onnx").write_bytes(b"this is no model")
        (folder / "old.plan").write_bytes(b"old")
        assert main(["build", model, "-o", "old.plan"]) == 1
        captured = capsys.readouterr()
        assert says in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""
        assert (folder / "old.plan").read_bytes() == b"old"

    @pytest.mark.parametrize(
        ("output", "says"),
        [
            ("missing/model.plan", "there is no folder"),
            (".", "this is a folder; give the name of a file in it"),
            ("/proc/model.plan", "cannot create a file in the folder '/proc'"),
            (256 * "n", "File name too long"),
            ("./trt_rt_test_models.onnx", "is the model, and the plan would replace it"),
            ("timings", "is the timing cache, and the plan would replace it"),
        ],
    )
    def test_a_place_that_cannot_be_written_is_named_before_the_build(
        self, output: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "trt_rt_test_models.onnx").write_bytes(b"no model")
        assert main(["build", "trt_rt_test_models.onnx", "-o", output, "--timing-cache", "timings"]) == 1
        error = capsys.readouterr().err
        assert output in error
        assert says in error
        assert (folder / "trt_rt_test_models.onnx").read_bytes() == b"no model"

    def test_a_name_of_the_longest_length(self, folder: Path) -> None:
        name = 251 * "n" + ".plan"[:4]
        assert main(["build", "trt_rt_test_models:static", "-o", name, "--backend", "reference"]) == 0
        assert identify_plan((folder / name).read_bytes()).backends == ("reference",)

    def test_no_space_on_disk_leaves_the_old_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def no_space(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        (folder / "model.plan").write_bytes(b"old")
        monkeypatch.setattr(os, "fsync", no_space)
        arguments = ["-o", "model.plan", "--backend", "reference"]
        assert main(["build", "trt_rt_test_models:static", *arguments]) == 1
        assert "No space left on device" in capsys.readouterr().err
        assert (folder / "model.plan").read_bytes() == b"old"
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
            "model.plan",
            "trt_rt_test_models.py",
        ]

    @pytest.mark.parametrize(
        "options",
        [
            ["--profile", "x=1:2"],
            ["--profile", "1x2:3x4:5x6"],
            ["--profile", "x=a:b:c"],
            ["--precision", "int3"],
            ["--compute-capability", "new"],
            ["--workspace-bytes", "0"],
            ["--optimization-level", "6"],
            ["--hardware-compatible", "--compute-capability", "8.6"],
        ],
    )
    def test_wrong_options_exit_with_2(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match=r"^2$"):
            main(["build", "model.onnx", "-o", "model.plan", *options])
        assert options[1] in capsys.readouterr().err


class _Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x + y + z


class TestInspect:
    def test_a_reference_plan_wholly(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "model.plan"
        path.write_bytes(plans.affine())
        assert main(["inspect", str(path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        engine = trt_rt.Engine.load(path, device="cpu")
        assert found["bytes"] == path.stat().st_size
        assert found["backends"] == ["reference"]
        assert found["why_not_loaded"] == ""
        assert found["profiles"] == engine.num_optimization_profiles
        assert found["layers"] == [
            {"Name": layer["Name"], "LayerType": layer["LayerType"]} for layer in engine.inspect()["Layers"]
        ]
        assert set(found["memory_bytes"]) == {"weights", "execution context"}
        for told, tensor in zip(found["io"], engine.inputs + engine.outputs, strict=True):
            assert (told["name"], told["mode"], told["shape"]) == (
                tensor.name,
                tensor.mode,
                list(tensor.shape),
            )
            assert f"torch.{told['dtype']}" == str(tensor.dtype)
            assert [tuple(profile["opt"]) for profile in told["profiles"]] == [
                profile.opt for profile in tensor.profiles
            ]

    def test_output_shapes_at_the_limits_of_each_profile(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "model.plan"
        path.write_bytes(plans.nonzero())
        assert main(["inspect", str(path), "--json"]) == 0
        x, *outputs = json.loads(capsys.readouterr().out)["io"]
        (limits,) = x["profiles"]
        assert (x["shapes"], [output["profiles"] for output in outputs]) == ([], [[], []])
        engine = trt_rt.Engine.load(path, device="cpu")
        for output, index in zip(outputs, range(2), strict=True):
            assert output["shapes"] == [
                {limit: list(engine.output_shapes({"x": limits[limit]})[index]) for limit in limits}
            ]
        assert main(["inspect", str(path)]) == 0
        assert "?x2 / ?x2 / ?x2" in " ".join(capsys.readouterr().out.split())

    def test_limits_that_do_not_fit_together(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = torch.export.Dim("rows", min=1, max=8)
        path = tmp_path / "model.plan"
        path.write_bytes(
            reference.build(
                plans.SumAndIncrement(),
                (torch.zeros(3, 2), torch.zeros(3, 2)),
                dynamic_shapes=({0: rows}, {0: rows}),
                profiles=[{"a": ([1, 2], [3, 2], [8, 2]), "b": ([1, 2], [4, 2], [8, 2])}],
            )
        )
        assert main(["inspect", str(path), "--json"]) == 0
        output = json.loads(capsys.readouterr().out)["io"][-1]
        assert output["shapes"] == [{"min": [1, 2], "max": [8, 2]}]
        assert main(["inspect", str(path)]) == 0
        assert "1x2 / refused / 8x2" in " ".join(capsys.readouterr().out.split())

    def test_a_reference_plan_for_cuda_needs_no_gpu(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "model.plan"
        path.write_bytes(reference.build(torch.nn.ReLU(), (torch.zeros(2, 4),), device="cuda"))
        assert main(["inspect", str(path)]) == 0
        assert "relu" in capsys.readouterr().out

    def test_a_plan_that_tensorrt_rtx_has_built(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status = trt_rt.backends()["tensorrt_rtx"]
        if not status.can_build:
            pytest.skip(status.reason)
        arguments = ["-o", "model.plan", "--backend", "tensorrt_rtx"]
        assert main(["build", "trt_rt_test_models:static", *arguments]) == 0
        capsys.readouterr()
        assert main(["inspect", "model.plan", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["version"], found["backends"]) == (status.version, ["tensorrt_rtx"])
        assert found["bytes"] == (folder / "model.plan").stat().st_size
        assert (found["io"] is None) == bool(found["why_not_loaded"])
        assert (found["why_not_loaded"] == "") == status.can_run
        assert main(["inspect", "model.plan"]) == 0
        assert f"a TensorRT-RTX plan of version {status.version}" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is empty"),
            (b"this is no plan", "of an unknown kind"),
            (b"ftrt", "truncated"),
            (plans.affine()[:-1], "truncated"),
        ],
    )
    def test_a_file_that_is_no_plan(
        self, content: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "model.plan"
        path.write_bytes(content)
        assert main(["inspect", str(path)]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith(f"trt-rt: {path}")
        assert says in captured.err
        assert captured.out == ""

    def test_a_pipe_is_read(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: pipe.write_bytes(plans.affine()))
        writer.start()
        assert main(["inspect", str(pipe), "--json"]) == 0
        writer.join()
        assert json.loads(capsys.readouterr().out)["bytes"] == len(plans.affine())

    def test_a_device_is_no_plan(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", "/dev/zero"]) == 1
        assert "/dev/zero is a device, and not a file" in capsys.readouterr().err

    @pytest.mark.parametrize("with_rich", [True, False])
    def test_names_reach_the_terminal_as_escapes(
        self,
        with_rich: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        if with_rich:
            pytest.importorskip("rich", reason="rich is not installed")
        else:
            monkeypatch.delitem(sys.modules, "trt_rt.cli.console", raising=False)
            monkeypatch.setitem(sys.modules, "rich.console", None)
            monkeypatch.setitem(sys.modules, "rich.table", None)
        names = ["a\x1b[2Jb", "c\ud800d", "e\r\nf\u202e"]
        monkeypatch.chdir(tmp_path)
        path = Path("model\x1b[31m.plan")
        inputs = tuple(torch.zeros(2) for _ in names)
        path.write_bytes(reference.build(_Sum(), inputs, input_names=names))
        assert main(["inspect", str(path)]) == 0
        printed = capsys.readouterr().out
        for escaped in ("a\\x1b[2Jb", "c\\ud800d", "e\\r\\nf\\u202e", "model\\x1b[31m.plan"):
            assert escaped in printed
        assert not {"\x1b", "\r", "\ud800", "\u202e"} & set(printed)
        assert main(["inspect", str(path), "--json"]) == 0
        assert [tensor["name"] for tensor in json.loads(capsys.readouterr().out)["io"]][:3] == names

    def test_a_file_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", str(tmp_path / "missing")]) == 1
        assert capsys.readouterr().err == f"trt-rt: {tmp_path / 'missing'}: No such file or directory\n"
        with pytest.raises(FileNotFoundError):
            main(["inspect", str(tmp_path / "missing"), "--debug"])
