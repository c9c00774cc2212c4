"""The command ``trt-rt``: exit codes, errors as sentences, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from trt_rt._version import __version__
from trt_rt.cli import main
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
