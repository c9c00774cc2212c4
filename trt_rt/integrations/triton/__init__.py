"""Model repositories for the Triton Inference Server."""

from trt_rt.integrations.triton.repository import ModelFolder, export_triton

__all__ = ["ModelFolder", "export_triton"]
