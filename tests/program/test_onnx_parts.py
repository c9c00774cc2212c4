"""Parts that TensorRT-RTX's own parser and builder take, and what the parser refuses."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from trt_rt.program.settings import CompileSettings
from trt_rt.program.stages import BuiltProgram, assemble_program, build_program, divide_program, model_graph


def exported(model: nn.Module, *inputs: torch.Tensor, **keywords: Any) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), inputs, **keywords)


def built(program: torch.export.ExportedProgram, settings: CompileSettings) -> BuiltProgram:
    graph = model_graph(program)
    plans = build_program(divide_program(graph, settings), settings)
    assert plans.is_complete
    return assemble_program(graph, plans, settings)


class TwoRefused(nn.Module):
    """The parser supports neither nonzero (it has no such plugin here) nor, in ONNX, unique's counts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 + 1) - 3
        rows = torch.nonzero(y)
        z = (rows * 2 + 1).float().sqrt() * 3
        values = torch.unique((z * 2).round() + 1)
        return (values * 2 + 1).relu() - 1


def test_what_the_parser_refuses_stays_in_pytorch(
    rtx_settings: CompileSettings, caplog: pytest.LogCaptureFixture
) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    program = exported(TwoRefused(), torch.randn(3, 4), dynamic_shapes=({0: batch},))
    with caplog.at_level(logging.WARNING):
        result = built(program, rtx_settings)
    refused = {step.operator: step for step in result.partition.torch_operators if not step.is_glue}
    assert set(refused) == {"aten.nonzero.default", "aten._unique2.default"}
    nonzero = refused["aten.nonzero.default"]
    assert nonzero.reason.startswith("tensorrt_rtx refuses ONNX NonZero")
    assert "rows = torch.nonzero(y)" in nonzero.source
    assert nonzero.splits
    assert len(result.plans) == 3
    assert all(plan.startswith(b"vtrt") for plan in result.plans.values())
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not errors  # an answer to a question is no error


def test_what_torch_onnx_cannot_express_stays_in_pytorch(rtx_settings: CompileSettings) -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(x * 2 + 1) - 3
            y = nn.functional.scaled_dot_product_attention(y, y, y)  # torch.onnx wants four dimensions
            y = torch.relu(y * 2 + 1) - 3
            return torch.special.airy_ai(y)  # has no ONNX function

    divided = divide_program(model_graph(exported(Attention(), torch.randn(2, 3, 4))), rtx_settings)
    reasons = {step.operator: step.reason for step in divided.partition.torch_operators}
    assert "only 4D query" in reasons["aten.scaled_dot_product_attention.default"]
    assert reasons["aten.special_airy_ai.default"] == "torch.onnx has no ONNX function for it"
    assert len(divided.partition.engines) == 2


def test_large_weights_are_not_in_the_questions(
    rtx_settings: CompileSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trt_rt.program import onnx_support

    sizes: list[int] = []
    ask = onnx_support._Question.__call__

    def noting(self: Any, question: bytes) -> str:
        sizes.append(len(question))
        return ask(self, question)

    monkeypatch.setattr(onnx_support._Question, "__call__", noting)
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024))
    result = built(exported(model, torch.randn(2, 1024)), rtx_settings)
    assert len(result.plans) == 1
    assert max(sizes) < 100_000


def test_an_engine_takes_the_sizes_of_its_inputs(rtx_settings: CompileSettings) -> None:
    """A part that needs a size of the program's input, and not that tensor, gets the tensor as an input."""

    class Carried(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.fft.fft(x.sum(0)).real
            return (y * 2 + 1).relu().expand(x.size(0), 4) * 2 + 1

    batch = torch.export.Dim("batch", min=1, max=8)
    program = exported(Carried(), torch.randn(3, 4), dynamic_shapes=({0: batch},))
    result = built(program, rtx_settings)
    (engine,) = [part for part in result.partition.engines if "aten.expand.default" in part.operators]
    assert "x" in [tensor.name for tensor in engine.inputs]


class Decomposed(nn.Module):
    """Operators that torch.onnx has no function of, next to a size that is read from an input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.ConvTranspose2d(3, 4, 3)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.adaptive_avg_pool2d(self.up(x), 2).flatten(1)
        order = torch.argsort(y, dim=1)
        chosen = (y > 0) & (y < 1) | (order > 3) ^ (order < 2)
        rows = torch.arange(x.size(0) * 2, device=x.device).view(x.size(0), 2)
        return self.normed(torch.diff(y[:, :5])) + (rows + order[:, :2]).sum(1, keepdim=True) * chosen[:, :4]


def converted_parts(program: torch.export.ExportedProgram, settings: CompileSettings) -> list[Any]:
    """The ONNX model of each part."""
    divided = divide_program(model_graph(program), settings).divided
    return [part.converted.model_proto for part in divided.parts]


def test_a_part_computes_in_onnx_what_it_computes_in_pytorch(
    rtx_settings: CompileSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx.reference import ReferenceEvaluator

    from trt_rt.program import part

    monkeypatch.setattr(part, "export_program", lambda *_, **__: pytest.fail("the part was traced again"))
    model = Decomposed().eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = exported(model, torch.randn(3, 3, 6, 6), dynamic_shapes=({0: batch},))
    (proto,) = converted_parts(program, rtx_settings)
    for size in (1, 3, 8):
        x = torch.randn(size, 3, 6, 6)
        (found,) = ReferenceEvaluator(proto).run(None, {"x": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), model(x))


class Convolutions(nn.Module):
    """Convolutions and batch norms in every form that torch.export keeps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain = nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), dilation=(1, 2), groups=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.same = nn.Conv2d(6, 6, 3, padding="same", bias=False)
        self.with_bias = nn.Conv2d(6, 4, 1)
        self.plain_norm = nn.BatchNorm2d(4, affine=False)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2, bias=False)
        self.line = nn.Conv1d(3, 4, 3, bias=False)
        self.line_norm = nn.BatchNorm1d(4)
        self.space = nn.Conv3d(1, 2, (1, 2, 2), padding=1, bias=False)
        self.space_norm = nn.BatchNorm3d(2)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.uniform_(module.weight)
                    nn.init.uniform_(module.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.norm(self.plain(x))
        z = self.up(self.plain_norm(self.with_bias(self.same(y))))
        line = self.line_norm(self.line(z.mean(2)))
        alone = nn.functional.conv1d(z[0].mean(1), self.line.weight)  # without a batch
        computed = y.mean(0)[:, None, :1, :1].repeat(1, 4, 1, 1)
        moving = nn.functional.conv2d(x, computed)
        return line * alone.mean(), self.space_norm(self.space(z[:, :1, None])), moving


def test_convolutions_and_batch_norms_are_one_node_each(
    rtx_settings: CompileSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx.reference import ReferenceEvaluator

    translated: list[str] = []
    optimize = torch.onnx.ONNXProgram.optimize

    def noting(self: torch.onnx.ONNXProgram) -> None:
        translated[:] = [node.op_type for node in self.model.graph]
        optimize(self)

    monkeypatch.setattr(torch.onnx.ONNXProgram, "optimize", noting)

    model = Convolutions().eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = exported(model, torch.randn(3, 4, 8, 9), dynamic_shapes=({0: batch},))
    (proto,) = converted_parts(program, rtx_settings)
    found = [node.op_type for node in proto.graph.node]
    assert found.count("Conv") == 7
    assert not {"CastLike", "Sqrt", "Div"} & set(found)
    assert translated.count("BatchNormalization") == 4
    small = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, bias=False), nn.ReLU())
    converted_parts(exported(small, torch.randn(2, 4, 3, 3)), rtx_settings)
    assert translated == ["Relu", "BatchNormalization", "Conv", "Relu"]
    for size in (1, 3, 8):
        x = torch.randn(size, 4, 8, 9)
        with torch.no_grad():
            wanted = model(x)
        results = map(torch.from_numpy, ReferenceEvaluator(proto).run(None, {"x": x.numpy()}))
        by_shape = {result.shape: result for result in results}  # a part's outputs have an order of their own
        torch.testing.assert_close([by_shape[one.shape] for one in wanted], list(wanted))


def test_all_results_of_a_batch_norm_may_be_used(rtx_settings: CompileSettings) -> None:
    class Saved(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean = torch.arange(4.0)
            y, saved, _ = torch.ops.aten._native_batch_norm_legit_no_training(
                x * 2, mean, mean, mean, mean + 1, 0.1, 1e-5
            )
            return torch.relu(y) + 1, torch.relu(saved + 1)

    (proto, *_) = converted_parts(exported(Saved(), torch.randn(2, 4, 3, 3)), rtx_settings)
    assert "BatchNormalization" in [node.op_type for node in proto.graph.node]


def test_a_part_that_only_tracing_can_tell_of_is_traced(rtx_settings: CompileSettings) -> None:
    """The second part's input has a size that depends on values; another has an expression for a size."""
    batch = torch.export.Dim("batch", min=1, max=8)
    program = exported(TwoRefused(), torch.randn(3, 4), dynamic_shapes=({0: batch},))
    assert len(converted_parts(program, rtx_settings)) == 3

    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.fft.fft(torch.cat([x, x])).real
            return torch.relu(y * 2 + 1).repeat(y.size(0), 1) * 2

    program = exported(Doubled(), torch.randn(3, 4), dynamic_shapes=({0: batch},))
    (engine,) = built(program, rtx_settings).partition.engines
    assert len(engine.operators) >= 4
