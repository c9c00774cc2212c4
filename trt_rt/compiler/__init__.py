"""The build of one engine: PyTorch to ONNX, then ONNX to a plan with TensorRT's parser and builder."""

from __future__ import annotations

from trt_rt.backend.atomic_file import check_writable, write_atomically
from trt_rt.compiler.building import BuiltPlan, build, build_plan
from trt_rt.compiler.onnx_export import export_onnx, export_program
from trt_rt.compiler.onnx_model import OnnxModel
from trt_rt.compiler.options import BuildOptions, Precision, TimingCache
from trt_rt.compiler.profiles import Profile, ShapeRange
from trt_rt.compiler.tensorrt_builder import BuiltNetwork, build_from_onnx

__all__ = [
    "BuildOptions",
    "BuiltNetwork",
    "BuiltPlan",
    "OnnxModel",
    "Precision",
    "Profile",
    "ShapeRange",
    "TimingCache",
    "build",
    "build_from_onnx",
    "build_plan",
    "check_writable",
    "export_onnx",
    "export_program",
    "write_atomically",
]
