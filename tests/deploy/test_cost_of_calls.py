"""What a call from C++ adds to the engine, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploy.building import ROOT, Run, compile_cpp, torch_flags
from tests.deploy.conftest import RUNTIME
from tests.deploy.programs import affine_plan
from trt_rt.deploy import LIBRARY_FOLDER

ENGINE = LIBRARY_FOLDER / "libtrt_rt_reference.so"

MOST_FOR_A_PROGRAM = 3.4
"""Microseconds over the bare enqueue: 3.5 for a call, of which TensorRT's own part would be 0.1."""

MOST_FOR_THE_OPERATOR = 1.5
"""Microseconds over the bare enqueue, with pre-allocated outputs."""

TRIES = 20
"""Other work on the machine can make a run twice as slow. What costs too much is too slow in every run."""


@pytest.fixture(scope="module")
def operator_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = ROOT / "bench/cpp/operator_calls.cpp"
    path = tmp_path_factory.mktemp("bench") / "operator_calls"
    return compile_cpp(source, path, "-O1", *torch_flags(), *RUNTIME, "-ldl")


def test_cost_over_the_bare_enqueue(operator_calls: Path, copied: Path, run: Run) -> None:
    (copied / "device").write_text("cpu")
    (copied / "meta").write_text(affine_plan()[1].dumps())
    (copied / "shape").write_text("1 8")
    seen = []
    for _ in range(TRIES):
        result = run(operator_calls, copied, ENGINE, 51)
        assert result.returncode == 0, result.stderr
        times = json.loads(result.stdout)
        program = times["program"] - times["enqueueV3"]
        operator = times["pre_allocated"] - times["enqueueV3"]
        if program <= MOST_FOR_A_PROGRAM and operator <= MOST_FOR_THE_OPERATOR:
            return
        seen.append((program, operator))
    pytest.fail(f"over the bare enqueue, the program and the operator took these microseconds: {seen}")
