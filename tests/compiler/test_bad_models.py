"""Models that cannot be built: the message names what, where and what to do."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.compiler.models import EXAMPLE, BranchOnValue, Positions, exported
from trt_rt import CompileError, build
from trt_rt.backend import Backend
from trt_rt.compiler import export_onnx


def test_a_model_that_cannot_be_exported() -> None:
    with pytest.raises(CompileError, match=r"torch\.export cannot export BranchOnValue: .*data-dependent"):
        build(BranchOnValue(), EXAMPLE)


def test_a_model_that_raises_is_named_with_its_error() -> None:
    with pytest.raises(
        CompileError, match=r"torch\.export cannot export Linear: RuntimeError: .*\[3, 4\]"
    ) as caught:
        build(torch.nn.Linear(5, 5), EXAMPLE)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_operator_that_the_parser_lacks_is_named_with_the_line_of_the_model(rtx: Backend) -> None:
    with pytest.raises(CompileError) as caught:
        build(Positions(), EXAMPLE, backend=rtx)
    lines, first = inspect.getsourcelines(Positions)
    place = next(index for index, line in enumerate(lines) if "nonzero" in line)
    message = str(caught.value)
    assert "operator NonZero" in message
    assert "node 'node_NonZero" in message
    assert (
        f'File "{__file__.replace("test_bad_models", "models")}", line {first + place}, in forward' in message
    )
    assert lines[place].split("#")[0].strip() in message
    assert "not found in plugin registry" in message
    assert "trt_rt.load_plugins" in message


def test_a_line_inside_pytorch_is_not_the_models(rtx: Backend) -> None:
    """Of the frames of a node, the innermost outside PyTorch is the one that the user can change."""

    class Inner(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.Sequential(Positions())(x)

    with pytest.raises(CompileError, match=r"models\.py\", line \d+, in forward: return torch.nonzero"):
        build(Inner(), EXAMPLE, backend=rtx)


@pytest.mark.parametrize("content", [b"not an ONNX model", b"\xff" * 64, None], ids=["text", "bytes", "cut"])
@pytest.mark.parametrize("as_file", [True, False], ids=["file", "in memory"])
def test_a_corrupt_model(rtx: Backend, tmp_path: Path, content: bytes | None, as_file: bool) -> None:
    serialized = export_onnx(exported()).SerializeToString()
    corrupt = serialized[: len(serialized) // 2] if content is None else content
    path = tmp_path / "model.onnx"
    path.write_bytes(corrupt)
    what = "model.onnx" if as_file else "the ONNX model"
    with pytest.raises(CompileError, match=rf"cannot parse .*{what}.*corrupt or truncated"):
        build(path if as_file else corrupt, backend=rtx)


def test_a_file_that_is_not_there(rtx: Backend, tmp_path: Path) -> None:
    for missing in (tmp_path / "model.onnx", tmp_path):
        with pytest.raises(CompileError, match=f"there is no ONNX file '{missing}'"):
            build(missing, backend=rtx)


def save_with_external_data(path: Path) -> None:
    import onnx

    onnx.save(
        export_onnx(exported()), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )


def test_external_data_that_is_missing(rtx: Backend, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_with_external_data(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CompileError) as caught:
        build(path, backend=rtx)
    for word in ("'weight'", str(path), "weights.bin", str(tmp_path), "does not exist"):
        assert word in str(caught.value)


def test_external_data_that_is_cut_short(rtx: Backend, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_with_external_data(path)
    (tmp_path / "weights.bin").write_bytes(b"\0")
    with pytest.raises(CompileError, match="cannot parse"):
        build(path, backend=rtx, profiles=[{"x": ((1, 4), (3, 4), (16, 4))}])


def test_external_data_of_a_model_without_a_path(rtx: Backend, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_with_external_data(path)
    with pytest.raises(CompileError, match=r"'weight' .* is in the file 'weights\.bin', and bytes have no"):
        build(path.read_bytes(), backend=rtx)


def test_a_model_of_a_type_that_pytorch_has_not(rtx: Backend) -> None:
    from onnx import TensorProto, helper

    types: dict[str, Any] = {"elem_type": TensorProto.FLOAT, "shape": [2, 4]}
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)],
        "graph",
        [helper.make_tensor_value_info("x", **types)],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [2, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(CompileError, match="operator Cast"):
        build(model, backend=rtx)
