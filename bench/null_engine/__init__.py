"""A backend that does nothing: TensorRT's Python API with an execution context that runs no network.

What a call over it costs is the cost of trt_rt alone. Use it as an API module::

    plan = null_engine.plan(inputs=2, outputs=1, shape=(-1, 16))
    backend = trt_rt.Backend("null", null_engine, runs_on_cpu=True)
    engine = trt_rt.Engine.from_bytes(plan, backend=backend)

Enumerations and interfaces are the reference backend's own, so a caller cannot tell the difference by
them. The execution context is compiled (``null_context.pyx``).
"""

from __future__ import annotations

from null_engine.null_context import IExecutionContext
from null_engine.null_plan import TensorSpec, plan
from null_engine.null_runtime import ICudaEngine, Runtime, live_contexts
from trt_rt.reference import (
    DataType,
    ExecutionContextAllocationStrategy,
    ILogger,
    IOutputAllocator,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
)

__version__ = "10.0.0"

__all__ = [
    "DataType",
    "ExecutionContextAllocationStrategy",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "IOutputAllocator",
    "Runtime",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "TensorSpec",
    "live_contexts",
    "plan",
]
