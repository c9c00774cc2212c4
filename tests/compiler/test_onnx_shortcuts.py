"""Shortcuts of an ONNX export change nothing but its time."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

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


class Promoted(nn.Module):
    """Operators whose arguments have several dtypes, some of them Python numbers, and results of others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers = torch.arange(x.shape[0], device=x.device)[:, None, None, None]
        y = (x > 0) * 2.5 + numbers // 2 + torch.pow(numbers + 1, 0.5)
        y = torch.where(y > 1, numbers, x.half()) + torch.true_divide(numbers, 3) - numbers.bool().sum()
        return y.double().mean(1) * 2 + torch.full_like(x[:, 0], 3, dtype=torch.int32)


class Checked(nn.Module):
    """Has assertions, a size that depends on values, and a graph within the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] < 100)
        rows = torch.nonzero(x[:, 0, 0])
        torch._check(rows.shape[0] <= 64)
        y = torch.cond(x.sum() > 0, lambda z: z * 2 + 1, lambda z: z.sin() - 1, (x,))
        return y.flatten(1)[:, :2].sum(0) + rows.sum(0) * 0.5


MODELS = (Layers, Promoted, Checked)


def converted(model: type[nn.Module] = Layers) -> bytes:
    batch = torch.export.Dim("batch", min=2, max=8)
    program = export_program(model().eval(), (torch.ones(2, 3, 4, 4),), dynamic_shapes=({0: batch},))
    proto = convert_program(program).model_proto
    drop_metadata(proto.graph)  # has numbers that differ from export to export
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def drop_metadata(graph: Any) -> None:
    for node in graph.node:
        del node.metadata_props[:]
        for attribute in node.attribute:
            drop_metadata(attribute.g)


@pytest.mark.parametrize("model", MODELS)
def test_an_export_is_the_same_without_them(monkeypatch: pytest.MonkeyPatch, model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    shorter = converted(model)
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_registry, "shortcuts", nullcontext)
        assert converted(model) == shorter


def test_only_promoted_operators_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.onnx._internal.fx.passes.type_promotion import _TypePromotionInterpreter

    ran: list[str] = []
    call = _TypePromotionInterpreter.call_function

    def noting(self: Any, target: Any, args: Any, kwargs: Any) -> Any:
        ran.append(str(target))
        return call(self, target, args, kwargs)

    monkeypatch.setattr(_TypePromotionInterpreter, "call_function", noting, raising=False)
    converted(Layers)
    assert "aten.mul.Tensor" in ran  # by the number 1, which becomes a tensor
    assert "aten.conv2d.default" not in ran
    ran.clear()
    monkeypatch.setattr(onnx_registry, "shortcuts", nullcontext)
    converted(Layers)
    assert "aten.conv2d.default" in ran


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
