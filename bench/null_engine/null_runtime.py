"""The null engine's Runtime and ICudaEngine; nothing here is on the path of a call."""

from __future__ import annotations

import weakref
from typing import Any

from null_engine.null_context import IExecutionContext
from null_engine.null_plan import TensorSpec, read_plan
from trt_rt.reference import DataType, ILogger, TensorFormat, TensorIOMode, TensorLocation

SMALLEST, BEST, LARGEST = 1, 1, 1024

_contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()


def live_contexts() -> set[IExecutionContext]:
    """Every execution context that is alive, so that a test can read the calls counted by it."""
    return set(_contexts)


class Runtime:
    """TensorRT's ``Runtime``, as far as a null engine needs one."""

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        """Read a null plan; None, with the reason logged, for any other."""
        try:
            plan = bytes(serialized_engine)
            specs, launches_kernel, busy_us = read_plan(plan)
        except ValueError as error:
            self.logger.log(ILogger.Severity.ERROR, str(error))
            return None
        return ICudaEngine(plan, specs, launches_kernel, busy_us, self.logger)


class ICudaEngine:
    """TensorRT's ``ICudaEngine``: float32 device tensors, one profile, nothing streamable or aliased."""

    name = "null"
    num_optimization_profiles = 1
    num_aux_streams = 0
    device_memory_size_v2 = 0
    streamable_weights_size = 0
    weight_streaming_budget_v2 = 0

    def __init__(
        self, plan: bytes, specs: list[TensorSpec], launches_kernel: bool, busy_us: float, logger: ILogger
    ) -> None:
        self._plan = plan
        self.specs = {spec.name: spec for spec in specs}
        self.inputs = [spec for spec in specs if spec.is_input]
        self.launches_kernel = launches_kernel
        self.busy_us = busy_us
        self._names = list(self.specs)
        self._logger = logger

    def create_execution_context(self, *_strategy: Any) -> IExecutionContext:
        """A new context; with a kernel to launch, it is loaded into the current CUDA context."""
        context = IExecutionContext(self)
        _contexts.add(context)
        return context

    def serialize(self) -> bytes:
        """Return the plan."""
        return self._plan

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self.specs[name].is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat.LINEAR

    def get_tensor_format_desc(self, name: str) -> str:
        return "Row major linear FP32 format"

    def get_tensor_vectorized_dim(self, name: str) -> int:
        return -1

    def get_tensor_components_per_element(self, name: str) -> int:
        return 1

    def get_tensor_bytes_per_component(self, name: str) -> int:
        return 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.specs[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        """Smallest, best and largest shape; the shape itself three times for a static tensor."""
        shape = self.specs[name].shape
        return [
            tuple(chosen if dimension == -1 else dimension for dimension in shape)
            for chosen in (SMALLEST, BEST, LARGEST)
        ]

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def get_aliased_input_tensor(self, name: str) -> str:
        return ""

    def is_debug_tensor(self, name: str) -> bool:
        return False

    def allows_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether `shape` fits the profile; logs the reason as TensorRT does where it does not."""
        allowed = name in self.specs and self.specs[name].is_input and self._fits(name, shape)
        if not allowed:
            self._logger.log(ILogger.Severity.ERROR, f"setInputShape: {shape} is not allowed for {name!r}")
        return allowed

    def _fits(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self.get_tensor_profile_shape(name, 0)
        return len(shape) == len(smallest) and all(
            low <= dimension <= high for low, dimension, high in zip(smallest, shape, largest, strict=True)
        )
