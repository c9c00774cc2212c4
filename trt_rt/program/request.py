"""The request for a compilation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from trt_rt.backend import Backend
from trt_rt.compiler import Precision, Profile
from trt_rt.compiler.onnx_export import DynamicShapes

__all__ = ["DEFAULT_MIN_BLOCK_SIZE", "IR", "CompileRequest"]

IR: TypeAlias = Literal["auto", "dynamo", "ts"]
"""The form of a model: what torch.export reads, or TorchScript."""

DEFAULT_MIN_BLOCK_SIZE = 3
"""docs/compile.md says how it was measured."""


@dataclass(frozen=True, kw_only=True)
class CompileRequest:
    """The arguments of :func:`trt_rt.compile`, which explains them."""

    model: Any
    ir: IR
    inputs: Sequence[Any] | None
    arg_inputs: Sequence[Any] | None
    kwarg_inputs: Mapping[str, Any] | None
    dynamic_shapes: DynamicShapes
    profiles: Sequence[Profile] | None
    precision: Precision
    backend: str | Backend
    torch_executed_ops: Iterable[Any]
    torch_executed_modules: Iterable[Any]
    min_block_size: int
    require_full_compilation: bool
    truncate_double: bool
    check: str | None
    dryrun: bool
    cache_dir: str | os.PathLike[str] | None
    progress: bool | None
    build_settings: Mapping[str, Any]
