"""TensorRT's Python API, executed by PyTorch: the backend for machines without TensorRT.

It exports the part of TensorRT's module that trt_rt and most programs need, and behaves as TensorRT does,
refusals included. :func:`build` makes its plans::

    import torch
    from trt_rt import reference as trt

    plan = trt.build(torch.nn.Linear(4, 2), (torch.zeros(3, 4),))
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(plan)

It is made to be right, not fast: PyTorch runs one operator after the other.
"""

from __future__ import annotations

from trt_rt.reference.builder import build
from trt_rt.reference.callbacks import IOutputAllocator, IProfiler, Profiler
from trt_rt.reference.configs import IRuntimeConfig, ISerializationConfig
from trt_rt.reference.dims import Dims
from trt_rt.reference.engine import ICudaEngine
from trt_rt.reference.enums import (
    DataType,
    EngineCapability,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    LayerInformationFormat,
    ProfilingVerbosity,
    SerializationFlag,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
)
from trt_rt.reference.execution_context import IExecutionContext
from trt_rt.reference.host_memory import IHostMemory
from trt_rt.reference.inspector import EngineInspector
from trt_rt.reference.logger import ILogger, Logger
from trt_rt.reference.plan_container import PLAN_MAGIC
from trt_rt.reference.refitter import Refitter
from trt_rt.reference.runtime import Runtime
from trt_rt.reference.weights_array import Weights

__all__ = [
    "PLAN_MAGIC",
    "DataType",
    "Dims",
    "EngineCapability",
    "EngineInspector",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "IOutputAllocator",
    "IProfiler",
    "IRuntimeConfig",
    "ISerializationConfig",
    "LayerInformationFormat",
    "Logger",
    "Profiler",
    "ProfilingVerbosity",
    "Refitter",
    "Runtime",
    "SerializationFlag",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "Weights",
    "build",
]

__version__ = "10.16.1"
"""The TensorRT release whose API this module has."""
