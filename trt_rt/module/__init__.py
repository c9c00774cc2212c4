"""`TRTModule`, the executors and modes behind it, and what changes the modes of a program's modules."""

from trt_rt.module.trt_module import PythonTorchTensorRTModule, TRTModule

__all__ = ["PythonTorchTensorRTModule", "TRTModule"]
