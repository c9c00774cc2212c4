"""Programs around engines, as trt_rt exports them, for the tests of the C++ runtime."""

from __future__ import annotations

import hashlib

import torch

from trt_rt import reference
from trt_rt.operator import OPERATOR, EngineMeta, TensorMeta

__all__ = ["Affine", "affine_plan", "export_affine", "program_over"]

BATCH = torch.export.Dim("b", min=1, max=32)


class Affine(torch.nn.Module):
    """The network of the plan: what the C++ reference engine can run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2.0 + 1.0)


def affine_plan() -> tuple[bytes, EngineMeta]:
    plan = reference.build(
        Affine(), (torch.ones(4, 8),), dynamic_shapes={"x": {0: BATCH}}, input_names=["x"], output_names=["y"]
    )
    meta = EngineMeta(
        "reference",
        hashlib.sha256(plan).hexdigest(),
        (TensorMeta("x", torch.float32, ("s0", 8)),),
        (TensorMeta("y", torch.float32, ("s0", 8)),),
    )
    return plan, meta


def program_over(plan: bytes, meta: EngineMeta) -> torch.nn.Module:
    """Return a module that calls one engine with one input and one output."""
    text = meta.dumps()

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("plan", torch.frombuffer(bytearray(plan), dtype=torch.uint8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = OPERATOR([x], self.plan, text)[0]
            return result

    return Program().eval()


def export_affine() -> torch.export.ExportedProgram:
    return torch.export.export(
        program_over(*affine_plan()), (torch.ones(4, 8),), dynamic_shapes={"x": {0: BATCH}}
    )
