"""C++ programs over the operator: the examples, threads, unloading, and wrong inputs.

The engine behind the operator is the C++ reference engine. It is not TensorRT, but is called as TensorRT is,
through the same virtual tables.
"""

from __future__ import annotations

import ctypes
import json
import sys
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


def test_the_aoti_example_runs(examples: Path, package: Path, run: Run) -> None:
    result = run(examples / "aoti", package)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[4, 8] sum 96\n", "")


def test_the_torchscript_example_runs(examples: Path, tmp_path: Path, run: Run) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # of every function of torch.jit
        traced = torch.jit.trace(program_over(*affine_plan()), torch.ones(4, 8), check_trace=False)
        traced.save(str(tmp_path / "program.ts"))
    result = run(examples / "torchscript", tmp_path / "program.ts")
    assert (result.returncode, result.stdout, result.stderr) == (0, "[4, 8] sum 96\n", "")


@pytest.mark.parametrize("command", ["threads", "threads-of-one-runner"])
def test_more_threads_than_contexts(calls: Path, package: Path, run: Run, command: str) -> None:
    result = run(calls, package, command, 12)
    assert json.loads(result.stdout) == {"wrong": 0}, result.stderr


def test_a_program_is_unloaded_while_another_runs(calls: Path, package: Path, run: Run) -> None:
    result = run(calls, package, "unload")
    assert json.loads(result.stdout)["wrong"] == 0, result.stderr


def test_a_program_and_the_library_are_freed_during_calls(calls: Path, package: Path, run: Run) -> None:
    result = run(calls, package, "free", LIBRARY)
    assert (result.returncode, result.stdout) == (0, '{"wrong": 0}\n'), result.stderr


def test_a_program_is_destroyed_during_its_call(calls: Path, package: Path, run: Run) -> None:
    result = run(calls, package, "destroy", LIBRARY)
    assert (result.returncode, result.stdout, result.stderr) == (0, "right\n", "")


@pytest.mark.parametrize("command", ["gradients", "pre-allocated"])
def test_results(calls: Path, package: Path, run: Run, command: str) -> None:
    result = run(calls, package, command)
    assert (result.returncode, result.stdout, result.stderr) == (0, "right\n", "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("wrong-shape", "has size 8 in dimension 1, and the tensor given has shape [4, 9]"),
        (
            "wrong-dtype",
            "is float32, and the tensor given is float16. Convert it with .to() before the call.",
        ),
        ("wrong-rank", "has 2 dimensions, and the tensor given has 3, in shape [4, 8, 1]."),
        ("wrong-count", "The program takes 1 tensors, and got 2."),
        ("wrong-count-none", "The program takes 1 tensors, and got 0."),
        (
            "wrong-device",
            "must be on cpu, and the tensor given is on meta. Move it with .to() before the call.",
        ),
        ("wrong-undefined", "The program's input 'x' is an undefined tensor."),
        ("wrong-layout", "must be a dense tensor. Convert it with .to_dense() before the call."),
        ("outside-profile", "'x' has shape [4000, 8]; allowed: [1, 8] to [32, 8]"),
    ],
)
def test_wrong_inputs(calls: Path, package: Path, run: Run, command: str, message: str) -> None:
    result = run(calls, package, command)
    assert message in result.stdout
    assert result.returncode == 0, "the next good call works"


def test_inputs_share_sizes_and_lie_as_the_example_did(calls: Path, tmp_path: Path, run: Run) -> None:
    result = run(calls, tmp_path, "check-inputs")
    assert result.returncode == 0, result.stderr
    message = "'y' has shape [5], and the size 5 in dimension 0 must be the 4 of another dimension or input."
    assert message in result.stdout


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


def test_constants_of_another_program(calls: Path, copied: Path, run: Run) -> None:
    constants = copied / CONSTANTS_FILE
    content = constants.read_bytes()
    constants.write_bytes(content.replace(b'"plan":', b'"blan":'))
    assert constants.read_bytes() != content
    result = run(calls, copied, "call")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"The constants in '{constants}' are not those of '{copied / PROGRAM_FILE}'. "
        "Copy both files from the same folder of `trt-rt package`.\n"
    )


def test_constants_without_an_argument_of_the_program(calls: Path, copied: Path, run: Run) -> None:
    constants = copied / CONSTANTS_FILE
    content = constants.read_bytes()
    constants.write_bytes(content.replace(b'"arguments":"plan"', b'"arguments":"nalp"'))
    assert constants.read_bytes() != content
    result = run(calls, copied, "call")
    assert (result.returncode, result.stdout) == (1, "")
    assert "are not those of" in result.stderr


def test_a_program_that_is_no_package(calls: Path, copied: Path, run: Run) -> None:
    (copied / PROGRAM_FILE).write_bytes(b"PK\x03\x04 and no more")
    result = run(calls, copied, "call")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"PyTorch cannot load '{copied / PROGRAM_FILE}': " in result.stderr
    assert "It must be a complete file of `trt-rt package`" in result.stderr


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


@pytest.fixture(scope="session")
def unlinked(build_once: Callable[..., Path]) -> Path:
    """A program that does not link the library. Linked programs are `calls` and the examples."""
    source = ROOT / "tests/deploy/programs/unlinked.cpp"
    return build_once("unlinked", lambda to: compile_cpp(source, to, *torch_flags(), "-ldl"))


def test_the_library_can_be_preloaded(unlinked: Path, run: Run) -> None:
    result = run(unlinked, LD_PRELOAD=str(LIBRARY))
    assert result.stdout == "the operator refuses the engine's description\n"


def test_the_library_can_be_opened(unlinked: Path, run: Run) -> None:
    assert run(unlinked, LIBRARY).stdout == "the operator refuses the engine's description\n"


def test_a_program_without_the_library(unlinked: Path, run: Run) -> None:
    without = run(unlinked)
    assert without.returncode == 1
    assert "Could not find schema for trt_rt::execute_engine" in without.stderr


def test_the_library_can_be_loaded_by_pytorch(run: Run) -> None:
    code = f"""
import torch
torch.ops.load_library({str(LIBRARY)!r})
print(torch.ops.trt_rt.execute_engine.default._schema)
"""
    result = run(sys.executable, "-c", code)
    schema = "trt_rt::execute_engine(Tensor[] inputs, Tensor plan, str meta) -> Tensor[]\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, schema, "")


def test_versions_agree() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.trt_rt_version.restype = ctypes.c_char_p
    assert library.trt_rt_version().decode() == trt_rt.__version__
