"""trt_rt: the lowest-overhead runtime for TensorRT engines inside PyTorch."""

from trt_rt import errors
from trt_rt._core.executor import BoundCall
from trt_rt._core.io_tensor import IOTensor, ProfileRange
from trt_rt._version import __version__
from trt_rt.backend import Backend, BackendStatus, backends
from trt_rt.engine import Engine
from trt_rt.errors import (
    BackendError,
    ClosedError,
    CompileError,
    ExecutionError,
    InputError,
    PlanError,
    TRTError,
)
from trt_rt.module import PythonTorchTensorRTModule, TRTModule
from trt_rt.refit import RefitResult, refit
from trt_rt.runtime import WeightStreaming, weight_streaming

__all__ = [
    "Backend",
    "BackendError",
    "BackendStatus",
    "BoundCall",
    "ClosedError",
    "CompileError",
    "Engine",
    "ExecutionError",
    "IOTensor",
    "InputError",
    "PlanError",
    "ProfileRange",
    "PythonTorchTensorRTModule",
    "RefitResult",
    "TRTError",
    "TRTModule",
    "WeightStreaming",
    "__version__",
    "backends",
    "errors",
    "refit",
    "weight_streaming",
]
