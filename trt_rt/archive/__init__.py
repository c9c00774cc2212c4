"""Programs in files: PT2 archives that are written without pickles and read without running code."""

from __future__ import annotations

from trt_rt.archive.conversion import export_torch_tensorrt
from trt_rt.archive.loading import load
from trt_rt.archive.saving import save

__all__ = ["export_torch_tensorrt", "load", "save"]
