"""Large plans: how much time and memory saving and loading take besides the engine's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trt_rt
from tests.patience import SECONDS_UNTIL_DEADLOCK

_CODE = """
import hashlib, json, sys, time, warnings
import torch, trt_rt
from trt_rt.archive.loading import load
from trt_rt.archive.saving import save
from tests.archive.memory import Peak
from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta
warnings.simplefilter("ignore")
SIZE = 1 << 30
folder = sys.argv[1]

with open(f"{folder}/plan", "wb") as file:
    file.truncate(SIZE)
plan = torch.from_file(f"{folder}/plan", size=SIZE, dtype=torch.uint8)

def digest():
    found = hashlib.sha256()
    for start in range(0, SIZE, 1 << 24):
        found.update(plan[start:start + (1 << 24)].numpy())
    return found.hexdigest()

sha256 = digest()  # and the file is in memory from now on
start = time.process_time()
digest()
hashing = time.process_time() - start
tensor = TensorMeta("x", torch.float32, (4,))
meta = EngineMeta("tensorrt", sha256, (tensor,), (tensor,)).dumps()

class Model(torch.nn.Module):
    def __init__(self, plan):
        super().__init__()
        self.register_buffer("plan", plan)

    def forward(self, x):
        return OPERATOR([x], self.plan, meta)[0]

# Imports and first calls are not what is measured.
large = torch.export.export(Model(plan), (torch.zeros(4),))
save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), f"{folder}/small.pt2")
load(f"{folder}/small.pt2")
found = {"hashing: s": hashing}
with Peak() as peak:
    save(large, f"{folder}/large.pt2")
found["saving: MB"] = peak.growth
for name, verify in (("loading", False), ("loading and comparing hashes", True)):
    times = []
    for _ in range(5):
        with Peak() as peak:
            start = time.process_time()
            program = load(f"{folder}/large.pt2", verify=verify, eager=False)
            times.append(time.process_time() - start)
        found[f"{name}: MB"] = max(found.get(f"{name}: MB", 0), peak.growth)
        del program
    found[f"{name}: s"] = min(times)
print(json.dumps(found))
"""


_PROGRAM_CODE = """
import json, sys, warnings
import torch, trt_rt
from tests.archive.memory import Peak
warnings.simplefilter("ignore")
folder, width = sys.argv[1], 3072

class Two(torch.nn.Module):
    # Three weights of 36 MB, in two engines.
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(width, width, bias=False) for _ in range(3)])

    def forward(self, x):
        first, between, last = self.layers
        return torch.relu(last(torch.fft.fft(between.weight * torch.relu(first(x))).real))

def compiled(model, size):
    return trt_rt.compile(
        model.eval(), inputs=[torch.zeros(1, size)], backend="reference", cache_dir=None, min_block_size=1
    )

trt_rt.save(compiled(torch.nn.Linear(2, 2), 2), f"{folder}/small.pt2")  # imports are not what is measured
program = compiled(Two(), width)
engines = [module.engine for name, module in program.named_children() if name.startswith("engine")]
plans = [len(engine.serialized()) / (1 << 20) for engine in engines]
found = {"largest": max(plans), "all": sum(plans)}
for name, saved in (("compiled", program), ("loaded", None)):
    saved = saved or trt_rt.load(f"{folder}/compiled.pt2")
    with Peak() as peak:
        trt_rt.save(saved, f"{folder}/{name}.pt2")
    found[name] = peak.growth
print(json.dumps(found))
"""


def test_a_program_is_saved_without_a_copy_of_its_plans(tmp_path: Path) -> None:
    found = _run(_PROGRAM_CODE, tmp_path)
    # The backend makes one plan after the other, in memory of its own.
    assert found["all"] > found["largest"] + 30
    assert found["compiled"] < found["largest"] + 20
    assert found["loaded"] < found["largest"] + 20


@pytest.mark.slow
def test_a_plan_of_1_gb(tmp_path: Path) -> None:
    found = _run(_CODE, tmp_path)
    print(found)
    assert found["saving: MB"] < 50
    assert found["loading: MB"] < 50
    assert found["loading and comparing hashes: MB"] < 50
    # Processor times, next to one that the same machine takes. Loading reads no byte of the plan; comparing
    # reads each of them once.
    assert found["loading: s"] < found["hashing: s"] / 5
    assert found["loading and comparing hashes: s"] < found["hashing: s"] * 3


def _run(code: str, folder: Path) -> dict[str, float]:
    root = str(Path(trt_rt.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        timeout=SECONDS_UNTIL_DEADLOCK,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, float] = json.loads(result.stdout)
    return found
