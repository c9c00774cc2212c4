"""The command's standard streams: pipes, devices, closed descriptors, and output of the model's own code."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import trt_rt
from tests import isolated
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt.backend import identify_plan

MODELS = """
import os, subprocess, sys
import torch

class Network(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x) + 1

class ExitingNetwork(torch.nn.Module):
    def forward(self, x):
        sys.exit(0)

def quiet():
    return Network(), (torch.zeros(2, 4),)

def talking():
    print("printed by Python")
    os.write(1, b"written to the descriptor\\n")
    subprocess.run(["echo", "printed by a subprocess"], check=True)
    (sys.__stdout__ or sys.stdout).write("printed to the original stream\\n")
    return quiet()

def exiting():
    sys.exit(0)

def exiting_later():
    return ExitingNetwork(), (torch.zeros(2, 4),)

def moving():
    os.chdir("elsewhere")
    return quiet()

def closing_output():
    sys.stdout.close()
    return quiet()

def closing_errors():
    sys.stderr.close()
    return quiet()

def stopping():
    raise GeneratorExit

def raising():
    raise ZeroDivisionError("this model is broken")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "streams_models.py").write_text(MODELS)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def trt_rt_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trt_rt.cli", *arguments]


def build(model: str, output: str, *options: str) -> list[str]:
    return trt_rt_command(
        "build", f"streams_models:{model}", "-o", output, "--backend", "reference", *options
    )


def run(command: Sequence[str] | str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = isolated.environment(**options.pop("environment", {}))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
        **options,
    )


def in_shell(command: Sequence[str], redirection: str) -> list[str]:
    return ["bash", "-c", f'set -o pipefail; "$0" "$@" {redirection}', *command]


class TestOutputThatIsNoFile:
    def test_a_pipe_is_written_into_and_stays(self, folder: Path) -> None:
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
        reader.start()
        try:
            done = run(build("quiet", str(pipe)), folder)
        finally:
            # A command that never opens the pipe would leave the reader waiting.
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
            if not stat.S_ISFIFO(pipe.stat().st_mode):
                reader.join(timeout=0)
            else:
                reader.join()
        assert (done.returncode, done.stderr) == (0, "")
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert identify_plan(received[0]).backends == ("reference",)

    def test_a_device_is_written_into_and_stays(self, folder: Path) -> None:
        device = folder / "full"
        try:
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 7))
            device.open("wb").close()
        except PermissionError as error:  # root, too, may make none in some containers
            pytest.skip(f"a device file cannot be made or opened here: {error}")
        done = run(build("quiet", str(device)), folder)
        assert done.returncode == 1
        assert os.strerror(errno.ENOSPC) in done.stderr
        assert "Traceback" not in done.stderr
        assert stat.S_ISCHR(device.stat().st_mode)

    def test_a_plan_on_standard_output_is_alone_there(self, folder: Path) -> None:
        done = run(in_shell(build("quiet", "/dev/stdout"), "| cat > out.plan"), folder)
        assert done.returncode == 0
        plan = (folder / "out.plan").read_bytes()
        assert trt_rt.Engine.from_bytes(plan, device="cpu").inputs
        assert f"{len(plan):,} bytes" in done.stderr

    def test_a_plan_and_json_on_standard_output_are_refused(self, folder: Path) -> None:
        done = run(in_shell(build("quiet", "/dev/stdout", "--json"), "> out"), folder)
        assert (done.returncode, (folder / "out").read_bytes()) == (1, b"")
        assert "cannot both go to standard output" in done.stderr

    def test_a_name_is_needed(self, folder: Path) -> None:
        done = run(build("moving", ""), folder)
        assert (done.returncode, done.stderr) == (1, "trt-rt: the name of the file to write is empty\n")


class TestStandardStreams:
    @pytest.mark.parametrize("model", ["closing_output", "closing_errors"])
    def test_a_model_may_close_them(self, model: str, folder: Path) -> None:
        done = run(build(model, "out.plan"), folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert trt_rt.Engine.load(folder / "out.plan", device="cpu").inputs

    def test_a_model_that_raises_what_is_no_exception(self, folder: Path) -> None:
        done = run(build("stopping", "out.plan"), folder)
        assert done.returncode == 1
        assert "raised GeneratorExit, so nothing was built" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("options", ["--json", ""])
    def test_a_reader_that_has_gone_is_no_error(self, options: str, folder: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        try:
            done = run(trt_rt_command("doctor", *options.split()), folder, stdout=write)
        finally:
            os.close(write)
        assert (done.returncode, done.stderr) == (128 + 13, "")

    def test_a_full_disk_under_standard_output_is_a_sentence(self, folder: Path) -> None:
        done = run(in_shell(trt_rt_command("doctor", "--json"), "> /dev/full"), folder)
        assert (done.returncode, done.stderr) == (1, f"trt-rt: {os.strerror(errno.ENOSPC)}\n")

    def test_with_closed_streams_nothing_is_printed_into_the_plan(self, folder: Path) -> None:
        done = run(in_shell(build("talking", "model.plan"), "<&- >&- 2>&-"), folder)
        assert done.returncode == 0
        assert trt_rt.Engine.load(folder / "model.plan", device="cpu").inputs

    def test_with_closed_standard_error_an_error_is_an_exit_code_only(self, folder: Path) -> None:
        done = run(in_shell(build("raising", "model.plan", "--json"), "2>&-"), folder)
        assert (done.returncode, done.stdout) == (1, "")

    def test_json_is_alone_on_standard_output(self, folder: Path) -> None:
        done = run(build("talking", "model.plan", "--json"), folder)
        assert done.returncode == 0
        assert json.loads(done.stdout)["file"] == "model.plan"
        for source in ("by Python", "to the descriptor", "by a subprocess", "to the original stream"):
            assert source in done.stderr

    def test_a_locale_without_the_characters_of_a_name(self, folder: Path) -> None:
        (folder / "modèle.py").write_text(MODELS)
        command = trt_rt_command("build", "modèle:quiet", "-o", "modèle.plan", "--backend", "reference")
        done = run(command, folder, environment={"PYTHONIOENCODING": "ascii"})
        assert done.returncode == 0
        assert done.stdout.startswith("mod\\xe8le.plan: ")


class TestModelCode:
    @pytest.mark.parametrize("model", ["exiting", "exiting_later"])
    def test_a_model_that_exits_with_0_is_a_failure(self, model: str, folder: Path) -> None:
        done = run(build(model, "model.plan"), folder)
        assert done.returncode == 1
        assert f"the code of streams_models:{model} called sys.exit(0), so nothing was built" in done.stderr
        assert not (folder / "model.plan").exists()

    def test_a_model_that_changes_the_folder_does_not_move_the_output(self, folder: Path) -> None:
        done = run(build("moving", "model.plan"), folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert (folder / "model.plan").exists()
        assert list((folder / "elsewhere").iterdir()) == []
