"""Packages one engine of a plan factory for operator_calls.cpp: make_package.py FOLDER MODULE:CALLABLE KIND.

The engine has one input and one output of float32.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

import torch

from trt_rt.deploy.constants_file import write_constants
from trt_rt.deploy.packaging import CONSTANTS_FILE, package_program
from trt_rt.engine import Engine
from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta

BATCH = 4


class Program(torch.nn.Module):
    def __init__(self, plan: bytes, meta: str) -> None:
        super().__init__()
        self.meta = meta
        self.register_buffer("plan", torch.frombuffer(bytearray(plan), dtype=torch.uint8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = OPERATOR([x], self.plan, self.meta)[0]
        return result


def main(folder: Path, factory: str, kind: str) -> None:
    module, _, name = factory.partition(":")
    made: dict[str, Any] = getattr(importlib.import_module(module), name)(kind)
    engine = Engine.from_bytes(made["plan"], backend=made["backend"], device=made["device"])
    [given], [result] = engine.inputs, engine.outputs
    [example] = made["example"](BATCH)
    shape = tuple("s0" if size == -1 else size for size in given.shape)
    meta = EngineMeta(
        "tensorrt",
        hashlib.sha256(made["plan"]).hexdigest(),
        (TensorMeta(given.name, given.dtype, shape),),
        (TensorMeta(result.name, result.dtype, shape),),
    ).dumps()
    batch = torch.export.Dim("b", min=1, max=32)
    exported = torch.export.export(Program(made["plan"], meta), (example,), dynamic_shapes={"x": {0: batch}})
    folder.mkdir(exist_ok=True)
    (folder / "device").write_text(str(example.device))
    (folder / "meta").write_text(meta)
    (folder / "shape").write_text(" ".join(map(str, example.shape)))
    write_constants(folder / CONSTANTS_FILE, exported.state_dict, ["plan"])
    print(package_program(exported, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
