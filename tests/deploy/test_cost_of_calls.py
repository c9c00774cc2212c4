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

MOST_FOR_A_PROGRAM = 12
"""Times the call of an operator that does nothing, over the bare enqueue. It takes 6, on any machine."""

MOST_FOR_THE_OPERATOR = 5
"""The same for the operator with pre-allocated outputs; it takes 2.3."""

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
        program = (times["program"] - times["enqueueV3"]) / times["nothing"]
        operator = (times["pre_allocated"] - times["enqueueV3"]) / times["nothing"]
        if program <= MOST_FOR_A_PROGRAM and operator <= MOST_FOR_THE_OPERATOR:
            return
        seen.append((program, operator))
    pytest.fail(f"over the bare enqueue, the program and the operator took this many calls: {seen}")
