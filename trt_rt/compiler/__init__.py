"""Makes engines from models: PyTorch to ONNX, ONNX to a plan with TensorRT's own builder."""

from __future__ import annotations

from trt_rt.compiler.onnx_export import export_onnx
from trt_rt.compiler.tensorrt_builder import Profile, ShapeRange, build_from_onnx

__all__ = ["Profile", "ShapeRange", "build_from_onnx", "export_onnx"]
