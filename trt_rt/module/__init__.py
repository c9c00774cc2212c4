"""`TRTModule`, its executors and modes, and the base of the controls that switch modes."""

from trt_rt.module import engine_operator as engine_operator  # defines the kernel of the operator
from trt_rt.module.trt_module import PythonTorchTensorRTModule, TorchTensorRTModule, TRTModule

__all__ = ["PythonTorchTensorRTModule", "TRTModule", "TorchTensorRTModule"]
