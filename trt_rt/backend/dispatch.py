"""TensorRT's dispatch runtime, which loads the lean runtime inside a version-compatible plan."""

from __future__ import annotations

from trt_rt.backend.lean import LeanRuntime

__all__ = ["DispatchRuntime"]


class DispatchRuntime(LeanRuntime):
    """The backend ``tensorrt_dispatch``. The plan has the runtime, so host code must be allowed."""

    title = "TensorRT's dispatch runtime"
    modules = ("tensorrt_dispatch_bindings", "tensorrt_dispatch")
    libraries = ("nvinfer_dispatch",)
    how_to_install = "pip install 'trt_rt[dispatch]'."
