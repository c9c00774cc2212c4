"""TensorRT-RTX's runtime settings and kernel cache, played over another backend.

TensorRT-RTX runs on GPUs that the tests do not have. tests/runtime/test_runtime_config.py compares what is
played here with the real bindings.
"""

from __future__ import annotations

import copy
import enum
import functools
import types
from typing import Any

import torch

from tests.reference import plans
from trt_rt import Backend, RuntimeSettings, TRTModule, reference

GOOD = b"kernels of this GPU:"


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class IRuntimeCache:
    """Counts the contexts that were made with it: these are its kernels."""

    def __init__(self) -> None:
        self.content = GOOD

    def serialize(self) -> bytes:
        return self.content

    def deserialize(self, blob: bytes) -> bool:
        if not bytes(blob).startswith(GOOD):
            return False
        self.content = bytes(blob)
        return True

    def reset(self) -> bool:
        self.content = GOOD
        return True


class IRuntimeConfig:
    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.strategy = reference.ExecutionContextAllocationStrategy.STATIC
        self.cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def get_runtime_cache(self) -> IRuntimeCache | None:
        return self.cache

    def set_runtime_cache(self, cache: IRuntimeCache | None = None) -> bool:
        self.cache = cache
        return True

    def get_execution_context_allocation_strategy(self) -> Any:
        return self.strategy

    def set_execution_context_allocation_strategy(
        self, strategy: Any = reference.ExecutionContextAllocationStrategy.STATIC
    ) -> None:
        self.strategy = strategy


made: list[IRuntimeConfig | None] = []
"""The configurations of the contexts that were made, in order; None for one without."""


class _WithRuntimeConfig:
    """Added to a backend's class of engines."""

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, strategy: Any = None) -> Any:
        config = strategy if isinstance(strategy, IRuntimeConfig) else None
        made.append(config)
        if config is not None:
            if config.cache is not None:
                config.cache.content += b"k"
            strategy = config.strategy
        create: Any = super().create_execution_context  # type: ignore[misc]
        return create() if strategy is None else create(strategy)


@functools.cache
def _with_runtime_config(kind: type) -> type:
    return type(kind.__name__, (_WithRuntimeConfig, kind), {})


def with_runtime_settings(backend: Backend) -> Backend:
    """Return a backend like `backend` that has the settings; they change nothing about its results."""

    class Runtime(backend.api.Runtime):  # type: ignore[misc]
        def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
            engine = super().deserialize_cuda_engine(serialized_engine)
            if engine is not None:
                engine.__class__ = _with_runtime_config(type(engine))
            return engine

    played = copy.copy(backend)
    played.api = types.ModuleType(f"{backend.name}_with_runtime_settings")
    vars(played.api).update(vars(backend.api))
    for kind in (
        Runtime,
        IRuntimeConfig,
        IRuntimeCache,
        CudaGraphStrategy,
        DynamicShapesKernelSpecializationStrategy,
    ):
        setattr(played.api, kind.__name__, kind)
    return played


def played_backend() -> Backend:
    """Return a backend over the played API, whose contexts are the reference backend's."""
    made.clear()
    return with_runtime_settings(Backend("played_tensorrt_rtx", reference, runs_on_cpu=True))


def load(backend: Backend, settings: RuntimeSettings | None = None) -> TRTModule:
    return TRTModule(plans.affine(), backend=backend, device="cpu", settings=settings)


def is_right(module: torch.nn.Module, rows: int = 3) -> bool:
    x = torch.randn(rows, 7)
    return torch.allclose(module(x), torch.relu(x) * 2 + 1)
