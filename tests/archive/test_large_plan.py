"""A plan of 1 GB: how much time and memory saving and loading take besides the engine's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import trt_rt

_CODE = """
import hashlib, json, sys, threading, time, warnings
import torch, trt_rt
from trt_rt.archive.loading import load
from trt_rt.archive.saving import save
from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta
warnings.simplefilter("ignore")
SIZE = 1 << 30
folder = sys.argv[1]

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024

class Peak(threading.Thread):
    # The most anonymous memory while it runs.
    def __init__(self):
        super().__init__(daemon=True)
        self.before = self.most = anonymous()
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.002):
            self.most = max(self.most, anonymous())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.join()
        self.most = max(self.most, anonymous()) - self.before

with open(f"{folder}/plan", "wb") as file:
    file.truncate(SIZE)
plan = torch.from_file(f"{folder}/plan", size=SIZE, dtype=torch.uint8)
digest = hashlib.sha256()
for start in range(0, SIZE, 1 << 24):
    digest.update(plan[start:start + (1 << 24)].numpy())
tensor = TensorMeta("x", torch.float32, (4,))
meta = EngineMeta("tensorrt", digest.hexdigest(), (tensor,), (tensor,)).dumps()

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
found = {}
with Peak() as peak:
    save(large, f"{folder}/large.pt2")
found["saving: MB"] = peak.most
for name, verify in (("loading", False), ("loading and comparing hashes", True)):
    times = []
    for _ in range(5):
        with Peak() as peak:
            start = time.perf_counter()
            program = load(f"{folder}/large.pt2", verify=verify, eager=False)
            times.append(time.perf_counter() - start)
        found[f"{name}: MB"] = max(found.get(f"{name}: MB", 0), peak.most)
        del program
    found[f"{name}: s"] = min(times)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_plan_of_1_gb(tmp_path: Path) -> None:
    root = str(Path(trt_rt.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_CODE), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    print(found)
    assert found["saving: MB"] < 50
    assert found["loading: MB"] < 50
    assert found["loading and comparing hashes: MB"] < 50
    assert found["loading: s"] < 0.1
    assert found["loading and comparing hashes: s"] < 5
