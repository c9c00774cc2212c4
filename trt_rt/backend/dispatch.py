"""TensorRT's dispatch runtime: loads the lean runtime that a version-compatible plan brings."""

from __future__ import annotations

from trt_rt.backend.lean import LeanRuntime

__all__ = ["DispatchRuntime"]


class DispatchRuntime(LeanRuntime):
    """``tensorrt_dispatch``. It runs nothing unless host code is allowed: the plan brings its runtime."""

    title = "TensorRT's dispatch runtime"
    modules = ("tensorrt_dispatch_bindings", "tensorrt_dispatch")
    libraries = ("nvinfer_dispatch",)
    how_to_install = "pip install 'trt_rt[dispatch]'."
