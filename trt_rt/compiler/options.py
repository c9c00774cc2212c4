"""What a build may be asked for besides the model itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from trt_rt.errors import CompileError

__all__ = ["BuildOptions", "Precision", "TimingCache"]

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "strong"]
"""What an engine computes in; "strong": in the dtypes of the model."""

TimingCache: TypeAlias = "str | os.PathLike[str] | bytearray"
"""Where measured timings are kept between builds: a file, or a bytearray that is changed in place."""

_OPTIMIZATION_LEVELS = range(6)
"""IBuilderConfig.builder_optimization_level; TensorRT takes others without a word and ignores them."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of one build; the attributes are described at :func:`trt_rt.build`.

    Raises
    ------
    CompileError
        A value is none that the option has, or two options contradict each other.
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
            raise CompileError(f"precision={self.precision!r}: it is one of {', '.join(get_args(Precision))}")
        if self.workspace_bytes is not None and self.workspace_bytes <= 0:
            raise CompileError(
                f"workspace_bytes={self.workspace_bytes}: it is a positive number of bytes, or None"
            )
        if self.optimization_level is not None and self.optimization_level not in _OPTIMIZATION_LEVELS:
            raise CompileError(f"optimization_level={self.optimization_level}: it goes from 0 to 5")
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
        """Return the options that were given, as they are written in a call."""
        defaults = BuildOptions()
        given = {name: value for name, value in vars(self).items() if value != getattr(defaults, name)}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _is_capability(capability: Any) -> bool:
    return (
        isinstance(capability, tuple)
        and len(capability) == 2
        and all(type(part) is int for part in capability)
    )
