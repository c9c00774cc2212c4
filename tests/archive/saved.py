"""A small program with an engine, and files of it for the tests to load, damage and forge."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

import trt_rt
from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta

__all__ = ["MANIFEST", "MODEL", "exported_counting", "forge", "records_of", "rewrite", "write_records"]

MODEL = "models/model.json"
MANIFEST = "extra/trt_rt.json"


class Counting(torch.nn.Module):
    """Counts its calls in a buffer; an engine in the middle, PyTorch around it, nested arguments."""

    def __init__(self) -> None:
        super().__init__()
        network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
        batch = Dim("batch", min=1, max=9)
        plan = trt_rt.build(network, (torch.zeros(3, 4),), dynamic_shapes=({0: batch},), backend="reference")
        self.register_buffer("plan", torch.frombuffer(bytearray(plan), dtype=torch.uint8))
        self.register_buffer("calls", torch.zeros(4))
        self.last = torch.nn.Linear(8, 2)
        self.meta = EngineMeta(
            "reference",
            hashlib.sha256(plan).hexdigest(),
            (TensorMeta("input", torch.float32, ("s0", 4)),),
            (TensorMeta("output0", torch.float32, ("s0", 8)),),
        ).dumps()

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor], flag: bool = True) -> dict[str, Any]:
        self.calls.add_(1)
        y = OPERATOR([x * 2 + self.calls], self.plan, self.meta)[0]
        return {"last": self.last(y), "more": [y.sum(), more["q"] * x.shape[0]]}


def exported_counting() -> ExportedProgram:
    """The program, exported with a batch of 1 to 9."""
    torch.manual_seed(0)
    shapes = {"x": {0: Dim("batch", min=1, max=9)}, "more": {"q": None}, "flag": None}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, of its own code
        exported = torch.export.export(
            Counting().eval(),
            (torch.randn(5, 4), {"q": torch.ones(2)}),
            {"flag": True},
            dynamic_shapes=shapes,
        )
        return exported.run_decompositions({})


def records_of(path: Path) -> dict[str, bytes]:
    """The records of an archive, without the folder that their names begin with."""
    with zipfile.ZipFile(path) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def write_records(path: Path, records: Mapping[str, bytes]) -> None:
    """Write an archive with any records."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in records.items():
            file.writestr(f"archive/{name}", content)


def forge(records: Mapping[str, bytes], target: Path) -> Path:
    """Write records with a manifest that has their hashes, as whoever changes a file on purpose would."""
    records = dict(records)
    if MANIFEST in records:
        manifest = json.loads(records.pop(MANIFEST))
        manifest["records"] = {
            name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in records.items()
        }
        records[MANIFEST] = json.dumps(manifest).encode()
    write_records(target, records)
    return target


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the JSON of an archive's program, and bring the manifest's hashes up to date."""
    records = records_of(source)
    model = json.loads(records[MODEL])
    change(model)
    records[MODEL] = json.dumps(model).encode()
    return forge(records, target)
