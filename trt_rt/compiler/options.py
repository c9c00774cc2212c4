"""The options of a build, and their limits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from trt_rt.errors import CompileError

__all__ = ["BuildOptions", "Precision", "TimingCache"]

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "strong"]
"""The precision that an engine computes in; "strong" means the dtypes of the model."""

TimingCache: TypeAlias = "str | os.PathLike[str] | bytearray"
"""The place of measured timings between builds: a file, or a bytearray that is changed in place."""

_OPTIMIZATION_LEVELS = range(6)
"""The levels of IBuilderConfig.builder_optimization_level. TensorRT silently ignores others."""

_LARGEST_SIZE = 2**63 - 1
"""TensorRT's sizes in bytes are signed 64-bit integers."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of one build; the attributes are described at :func:`trt_rt.build`.

    Raises
    ------
    CompileError
        An option does not allow its value, or two options contradict each other.
    """

    precision: Precision = "strong"
    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    refittable: bool = False
    weight_streaming: bool = False
    optimization_level: int | None = None
    timing_cache: TimingCache | None = None
    compute_capabilities: Sequence[tuple[int, int]] = ()
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            quantized = str(self.precision).lower() in ("int8", "fp8", "int4", "fp4")
            hint = "; for that, quantize the model (torchao, modelopt) and compile the result as it is"
            raise CompileError(
                f"precision={self.precision!r}: it is one of {', '.join(get_args(Precision))}"
                f"{hint if quantized else ''}"
            )
        if self.workspace_bytes is not None and not (
            _is_integer(self.workspace_bytes) and 0 < self.workspace_bytes <= _LARGEST_SIZE
        ):
            raise CompileError(
                f"workspace_bytes={self.workspace_bytes!r}: give 1 to 2**63 - 1 bytes, or None"
            )
        if self.optimization_level is not None and not (
            _is_integer(self.optimization_level) and self.optimization_level in _OPTIMIZATION_LEVELS
        ):
            raise CompileError(
                f"optimization_level={self.optimization_level!r}: it is an integer from 0 to 5, or None"
            )
        if not isinstance(self.compute_capabilities, (tuple, list)):
            raise CompileError(
                f"compute_capabilities={self.compute_capabilities!r}: give a list of pairs (major, minor), "
                "such as [(8, 6)]"
            )
        if any(not _is_capability(capability) for capability in self.compute_capabilities):
            raise CompileError(
                f"compute_capabilities={list(self.compute_capabilities)}: each is a pair (major, minor), "
                "such as (8, 6)"
            )
        if self.hardware_compatible and self.compute_capabilities:
            raise CompileError(
                "hardware_compatible=True asks for a plan for every GPU from Ampere on, and "
                f"compute_capabilities={list(self.compute_capabilities)} for some: give one of the two"
            )

    def in_words(self) -> str:
        """Return the options that differ from their defaults, as they are written in a call."""
        defaults = BuildOptions()
        given = {name: value for name, value in vars(self).items() if value != getattr(defaults, name)}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_capability(capability: Any) -> bool:
    return (
        isinstance(capability, tuple)
        and len(capability) == 2
        and all(type(part) is int for part in capability)
    )
