"""C++ programs over the operator: the examples, threads, unloading, and wrong inputs.

The engine behind the operator is the C++ reference engine. It is not TensorRT, but is called as TensorRT is,
through the same virtual tables.
"""

from __future__ import annotations

import ctypes
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import trt_rt.module
from tests.deploy.building import ROOT, Run, compile_cpp, torch_flags
from tests.deploy.programs import affine_plan, program_over
from trt_rt.deploy import LIBRARY
from trt_rt.deploy.packaging import CONSTANTS_FILE, PROGRAM_FILE


def test_the_aoti_example_runs(compiled: Callable[[str], Path], package: Path, run: Run) -> None:
    result = run(compiled("examples/cpp/aoti.cpp"), package)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[4, 8] sum 96\n", "")


def test_the_torchscript_example_runs(compiled: Callable[[str], Path], tmp_path: Path, run: Run) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # of every function of torch.jit
        traced = torch.jit.trace(program_over(*affine_plan()), torch.ones(4, 8), check_trace=False)
        traced.save(str(tmp_path / "program.ts"))
    result = run(compiled("examples/cpp/torchscript.cpp"), tmp_path / "program.ts")
    assert (result.returncode, result.stdout, result.stderr) == (0, "[4, 8] sum 96\n", "")


def test_more_threads_than_contexts(calls: Path, package: Path, run: Run) -> None:
    result = run(calls, package, "threads", 12)
    assert json.loads(result.stdout) == {"wrong": 0}, result.stderr


def test_a_program_is_unloaded_while_another_runs(calls: Path, package: Path, run: Run) -> None:
    result = run(calls, package, "unload")
    assert json.loads(result.stdout)["wrong"] == 0, result.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("wrong-shape", "has size 8 in dimension 1, and the tensor given has shape [4, 9]"),
        (
            "wrong-dtype",
            "is float32, and the tensor given is float16. Convert it with .to() before the call.",
        ),
        ("outside-profile", "'x' has shape [4000, 8]; allowed: [1, 8] to [32, 8]"),
    ],
)
def test_wrong_inputs(calls: Path, package: Path, run: Run, command: str, message: str) -> None:
    result = run(calls, package, command)
    assert message in result.stdout
    assert result.returncode == 0, "the next good call works"


def test_memory_does_not_grow(calls: Path, package: Path, run: Run) -> None:
    result = run(calls, package, "time", 40_000)
    # 16 bytes a call would be 640 kB.
    assert json.loads(result.stdout)["grown_kilobytes"] < 300, result.stderr


def test_a_folder_without_a_program(calls: Path, tmp_path: Path, run: Run) -> None:
    result = run(calls, tmp_path, "call")
    assert result.returncode == 1
    assert result.stderr.startswith(f"There is no program for C++ in '{tmp_path}' (no file {PROGRAM_FILE}).")
    assert "trt-rt package" in result.stderr


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_truncated_constants(calls: Path, copied: Path, run: Run, length: int) -> None:
    constants = copied / CONSTANTS_FILE
    constants.write_bytes(constants.read_bytes()[:length])
    result = run(calls, copied, "call")
    assert result.returncode == 1
    assert str(constants) in result.stderr


def test_missing_constants(calls: Path, copied: Path, run: Run) -> None:
    (copied / CONSTANTS_FILE).unlink()
    result = run(calls, copied, "call")
    assert result.returncode == 1
    assert "cannot be opened: No such file or directory" in result.stderr


def test_a_damaged_plan(calls: Path, copied: Path, run: Run) -> None:
    constants = bytearray((copied / CONSTANTS_FILE).read_bytes())
    constants[-1] ^= 1
    (copied / CONSTANTS_FILE).write_bytes(constants)
    result = run(calls, copied, "call")
    assert result.returncode == 1
    assert "is damaged or another one: the SHA-256" in result.stderr


def test_a_large_plan_is_mapped_and_not_copied(calls: Path, copied: Path, run: Run) -> None:
    small = json.loads(run(calls, copied, "memory").stdout)["private_kilobytes"]
    path = copied / CONSTANTS_FILE
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    size = 200 << 20
    begin = header["plan"]["data_offsets"][0]
    header["plan"].update(shape=[size], data_offsets=[begin, begin + size])
    text = json.dumps(header).encode()
    with path.open("wb") as file:  # a sparse file: the plan is not read by this command
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + begin + size)
    result = run(calls, copied, "memory")
    assert json.loads(result.stdout)["private_kilobytes"] < small + 5_000, result.stderr


def test_the_library_can_be_preloaded_or_opened(tmp_path: Path, run: Run) -> None:
    """A program that does not link the library needs LD_PRELOAD or dlopen."""
    source = ROOT / "tests/deploy/programs/unlinked.cpp"
    unlinked = compile_cpp(source, tmp_path / "unlinked", *torch_flags(), "-ldl")
    assert run(unlinked, LD_PRELOAD=str(LIBRARY)).stdout == "the operator refuses the engine's description\n"
    assert run(unlinked, LIBRARY).stdout == "the operator refuses the engine's description\n"
    without = run(unlinked)
    assert without.returncode == 1
    assert "Could not find schema for trt_rt::execute_engine" in without.stderr


def test_versions_agree() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.trt_rt_version.restype = ctypes.c_char_p
    assert library.trt_rt_version().decode() == trt_rt.__version__
