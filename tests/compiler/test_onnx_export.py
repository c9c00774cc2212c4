"""PyTorch to ONNX bytes."""

from __future__ import annotations

import pytest
import torch

from trt_rt.compiler import onnx_export
from trt_rt.errors import CompileError

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxscript", reason="the package onnxscript is not installed")


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class BranchOnValue(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class SingularValues(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x).S


def test_names_and_dynamic_dimensions_are_as_asked() -> None:
    program = onnx_export.export_program(
        Scale().eval(), (torch.ones(2, 3),), dynamic_shapes={"x": {0: torch.export.Dim("rows", max=16)}}
    )
    graph = onnx_export.export_onnx(program, input_names=["given"], output_names=["scaled"]).graph
    (given,), (scaled,) = graph.input, graph.output
    assert (given.name, scaled.name) == ("given", "scaled")
    rows, columns = given.type.tensor_type.shape.dim
    assert rows.dim_param
    assert columns.dim_value == 3


def test_weights_are_inside_and_results_are_pytorchs() -> None:
    from onnx.reference import ReferenceEvaluator

    x = torch.arange(6.0).reshape(2, 3)
    model = onnx_export.export_onnx(onnx_export.export_program(Scale().eval(), (x,)))
    (result,) = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), x * 2)


def test_inputs_by_keyword_keep_their_names() -> None:
    program = onnx_export.export_program(Scale().eval(), (), {"x": torch.ones(2, 3)})
    assert [tensor.name for tensor in onnx_export.export_onnx(program).graph.input] == ["x"]


def test_a_model_that_torch_export_refuses_is_named() -> None:
    with pytest.raises(
        CompileError, match=r"torch.export cannot export BranchOnValue: .*data-dependent"
    ) as caught:
        onnx_export.export_program(BranchOnValue().eval(), (torch.ones(2),))
    assert caught.value.__cause__ is not None


def test_an_operator_that_onnx_lacks_is_named() -> None:
    program = onnx_export.export_program(SingularValues().eval(), (torch.ones(2, 2),))
    with pytest.raises(CompileError, match=r"cannot express SingularValues in ONNX: .*svd"):
        onnx_export.export_onnx(program, name="SingularValues")


def test_weights_that_do_not_fit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_PROTOBUF_LIMIT_BYTES", 11)
    program = onnx_export.export_program(Scale().eval(), (torch.ones(2, 3),))
    with pytest.raises(CompileError, match=r"12 bytes.*at most 11"):
        onnx_export.export_onnx(program)
