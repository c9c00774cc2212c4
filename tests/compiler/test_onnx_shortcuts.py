"""Shortcuts of an ONNX export change nothing but its time."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from trt_rt.compiler import onnx_registry
from trt_rt.compiler.onnx_export import convert_program, export_program

pytest.importorskip("onnxscript")


class Layers(nn.Module):
    """Has what rules of the optimizer look for: a batch norm after a convolution, reshapes, casts, a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu6(self.norm(self.conv(x)))
        y = y.reshape(x.shape[0], -1).reshape(x.shape[0], 4, -1)
        return torch.clamp(torch.clamp(y, min=0.1), max=0.9).to(torch.float32) * 1


def converted() -> bytes:
    batch = torch.export.Dim("batch", min=2, max=8)
    program = export_program(Layers().eval(), (torch.ones(2, 3, 4, 4),), dynamic_shapes=({0: batch},))
    model = convert_program(program).model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def test_an_export_is_the_same_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shorter = converted()
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_registry, "shortcuts", nullcontext)
        assert converted() == shorter


def test_a_rule_is_tried_only_where_its_pattern_can_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxscript.rewriter import RewriteRule

    tried: list[str] = []
    match = RewriteRule.match

    def counting(rule: object, model: object, graph: object, node: object, **options: object) -> object:
        tried.append(node.op_type)  # type: ignore[attr-defined]
        return match(rule, model, graph, node, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(RewriteRule, "match", counting)
    converted()
    fewer = len(tried)
    tried.clear()
    monkeypatch.setattr(onnx_registry, "shortcuts", nullcontext)
    converted()
    assert 0 < fewer < len(tried) / 4
