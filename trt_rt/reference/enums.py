"""TensorRT's enums, member for member and value for value."""

from __future__ import annotations

import enum

__all__ = [
    "DataType",
    "EngineCapability",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "ProfilingVerbosity",
    "SerializationFlag",
    "Severity",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
]


class _TensorRTEnum(enum.Enum):
    """Like pybind11's enums: ``int(member)`` works, but a member is not equal to its number."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class DataType(_TensorRTEnum):
    """Element types of I/O tensors."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8
    INT4 = 9
    FP4 = 10
    E8M0 = 11

    @property
    def itemsize(self) -> float | None:
        """Size of an element in bytes; a fraction for types smaller than a byte; None where unknown."""
        return _ITEM_SIZES.get(self)


_ITEM_SIZES: dict[DataType, float] = {
    DataType.FLOAT: 4,
    DataType.HALF: 2,
    DataType.INT8: 1,
    DataType.INT32: 4,
    DataType.BOOL: 1,
    DataType.UINT8: 1,
    DataType.FP8: 1,
    DataType.BF16: 2,
    DataType.INT64: 8,
    DataType.INT4: 0.5,
    DataType.FP4: 0.5,
}


class TensorIOMode(_TensorRTEnum):
    """Direction of an I/O tensor; NONE for a name that is no I/O tensor."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(_TensorRTEnum):
    """Where a tensor's memory is."""

    DEVICE = 0
    HOST = 1


class TensorFormat(_TensorRTEnum):
    """Memory layouts; the reference backend's I/O tensors are all LINEAR."""

    LINEAR = 0
    CHW2 = 1
    HWC8 = 2
    CHW4 = 3
    CHW16 = 4
    CHW32 = 5
    DHWC8 = 6
    CDHW32 = 7
    HWC = 8
    DLA_LINEAR = 9
    DLA_HWC4 = 10
    HWC16 = 11
    DHWC = 12


class ExecutionContextAllocationStrategy(_TensorRTEnum):
    """The owner of a context's scratch memory, and the time of its allocation."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ProfilingVerbosity(_TensorRTEnum):
    """How much an engine reveals about its layers."""

    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class LayerInformationFormat(_TensorRTEnum):
    """Format of the engine inspector's descriptions."""

    ONELINE = 0
    JSON = 1


class EngineCapability(_TensorRTEnum):
    """Which of TensorRT's runtimes an engine is for."""

    STANDARD = 0
    SAFETY = 1
    DLA_STANDALONE = 2


class HardwareCompatibilityLevel(_TensorRTEnum):
    """Which GPUs an engine runs on besides the one it was built on."""

    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class SerializationFlag(_TensorRTEnum):
    """The contents of a serialized engine."""

    EXCLUDE_WEIGHTS = 0
    EXCLUDE_LEAN_RUNTIME = 1
    INCLUDE_REFIT = 2


@enum.unique
class Severity(enum.IntEnum):
    """Severity of a log message, ordered from the most severe, as TensorRT's is."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4

    def __str__(self) -> str:
        return f"Severity.{self.name}"
