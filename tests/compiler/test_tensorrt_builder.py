"""ONNX to a plan, with the real TensorRT-RTX builder (which needs no GPU)."""

from __future__ import annotations

import pytest

from trt_rt.backend import Backend
from trt_rt.compiler import OnnxModel, Profile, build_from_onnx
from trt_rt.errors import CompileError

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")

RTX_MAGIC = b"vtrt"
FLOAT = onnx.TensorProto.FLOAT


def serialize(
    operator: str, input_shape: list[int | str], output_shape: list[int | str], **types: int
) -> bytes:
    """Return an ONNX model of one node, named "the_node", from tensor "x" to tensor "y"."""
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], name="the_node")],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", types.get("output_type", FLOAT), output_shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def dynamic_relu() -> bytes:
    return serialize("Relu", ["rows", 4], ["rows", 4])


def test_a_static_model_needs_no_profile(rtx: Backend) -> None:
    plan = build_from_onnx(OnnxModel(serialize("Relu", [2, 4], [2, 4])), rtx).plan
    assert plan.startswith(RTX_MAGIC)


def test_a_dynamic_model_is_built_with_several_profiles(rtx: Backend, dynamic_relu: bytes) -> None:
    profiles: list[Profile] = [{"x": ((1, 4), (2, 4), (8, 4))}, {"x": ((8, 4), (16, 4), (64, 4))}]
    assert build_from_onnx(OnnxModel(dynamic_relu), rtx, profiles=profiles).plan.startswith(RTX_MAGIC)


def test_an_unsupported_operator_is_named_with_its_node(rtx: Backend) -> None:
    model = serialize("NonZero", [4, 4], [2, "count"], output_type=onnx.TensorProto.INT64)
    with pytest.raises(CompileError, match=r"node 'the_node', operator NonZero: .*not found"):
        build_from_onnx(OnnxModel(model), rtx)


@pytest.mark.parametrize("corrupt", [b"not an ONNX model", b"\xff" * 64], ids=["text", "bytes"])
def test_corrupt_bytes_are_refused(rtx: Backend, corrupt: bytes) -> None:
    with pytest.raises(CompileError, match=r"cannot parse the ONNX model: .*corrupt or truncated"):
        build_from_onnx(OnnxModel(corrupt), rtx)


def test_a_truncated_model_is_refused(rtx: Backend, dynamic_relu: bytes) -> None:
    # A cut between two top-level fields leaves a whole, smaller message; these do not, or leave nothing.
    for length in (0, 1, 10, len(dynamic_relu) // 2, len(dynamic_relu) - 1):
        with pytest.raises(CompileError):
            build_from_onnx(OnnxModel(dynamic_relu[:length]), rtx)


def test_a_model_without_outputs_is_refused(rtx: Backend) -> None:
    with pytest.raises(CompileError, match="has no outputs"):
        build_from_onnx(OnnxModel(b""), rtx)


def test_the_builders_own_reason_is_in_the_exception(rtx: Backend, dynamic_relu: bytes) -> None:
    with pytest.raises(CompileError, match=r"refused to build the network: .*no optimization profile"):
        build_from_onnx(OnnxModel(dynamic_relu), rtx)


@pytest.mark.parametrize(
    ("profile", "complaint"),
    [
        ({"z": ((1, 4), (2, 4), (8, 4))}, r"ranges for \['z'\], but the inputs are \['x'\]"),
        ({}, "no range for input 'x'"),
        ({"x": ((1, 4, 1), (2, 4, 1), (8, 4, 1))}, r"\(1, 4, 1\) does not fit input 'x'"),
        ({"x": ((1, 5), (2, 5), (8, 5))}, r"\(1, 5\) does not fit input 'x', whose shape is \(-1, 4\)"),
        ({"x": ((4, 4), (2, 4), (8, 4))}, "this one does not"),
    ],
    ids=["unknown name", "no range", "rank", "static dimension", "not growing"],
)
def test_a_profile_that_does_not_fit_is_explained(
    rtx: Backend, dynamic_relu: bytes, profile: Profile, complaint: str
) -> None:
    with pytest.raises(CompileError, match=complaint):
        build_from_onnx(OnnxModel(dynamic_relu), rtx, profiles=[profile])
