"""Engines that TensorRT's own builders make, from PyTorch through ONNX."""

from __future__ import annotations

from typing import Any

import torch

from tests.built_once import built_once
from tests.factories.networks import network
from trt_rt import build

__all__ = ["make_tensorrt", "make_tensorrt_rtx"]

# Kinds that torch.onnx, TensorRT's parser and a strongly typed network can express. (ONNX's NonZero needs a
# plugin, which TensorRT-RTX has not.)
_KINDS = frozenset(
    {"relu", "half", "two", "many", "shape_tensor", "shape_tensor32", "profiles", "empty", "scalar"}
    | {"static", "slow", "names"}
    | {f"identity_{dtype}" for dtype in ("float32", "float16", "bfloat16", "int32", "int64", "bool")}
)


def make_tensorrt(kind: str) -> dict[str, Any] | None:
    """An engine of TensorRT's builder."""
    return _make(kind, "tensorrt")


def make_tensorrt_rtx(kind: str) -> dict[str, Any] | None:
    """An engine of TensorRT-RTX's builder."""
    return _make(kind, "tensorrt_rtx")


def _make(kind: str, backend: str) -> dict[str, Any] | None:
    source = network(kind, "cuda")
    if source is None or kind not in _KINDS:
        return None
    place = torch.device("cuda")
    return {
        "plan": build_plan(kind, backend),
        "backend": backend,
        "device": place,
        "inputs": list(source.inputs),
        "outputs": list(source.outputs),
        "example": lambda n: source.example(n, place),
        "expected": source.expected,
    }


@built_once
def build_plan(kind: str, backend: str) -> bytes:
    """The plan of a kind; TensorRT-RTX builds it with no GPU too."""
    source = network(kind, "cuda")
    assert source is not None
    dynamic = source.dynamic_shapes()
    return build(
        source.module(),
        source.example(3, torch.device("cpu")),
        dynamic_shapes=None if dynamic is None else (dynamic,),
        profiles=[ranges for ranges in source.profiles if ranges],
        backend=backend,
        input_names=source.inputs,
        output_names=source.outputs,
    )
