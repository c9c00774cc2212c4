"""The settings of a compilation, from the arguments of `trt_rt.compile` or the options of torch.compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import torch

from trt_rt.backend import Backend, load
from trt_rt.compiler import BuildOptions, Precision
from trt_rt.compiler.builder_choice import choose_builder
from trt_rt.errors import CompileError
from trt_rt.program.exporting import model_device
from trt_rt.program.request import DEFAULT_MIN_BLOCK_SIZE, CompileRequest
from trt_rt.program.support import Exclusions

__all__ = ["CompileSettings", "settings_of_options", "settings_of_request"]


@dataclass(frozen=True)
class CompileSettings:
    """The settings of a compilation, besides the model and its inputs; see :func:`trt_rt.compile`."""

    backend: Backend
    device: torch.device
    exclusions: Exclusions
    options: BuildOptions
    min_block_size: int
    require_full_compilation: bool
    truncate_double: bool

    def __post_init__(self) -> None:
        size = self.min_block_size
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise CompileError(f"min_block_size={size!r}: it is an integer of at least 1")
        for name in ("require_full_compilation", "truncate_double"):
            if not isinstance(getattr(self, name), bool):
                raise CompileError(f"{name}={getattr(self, name)!r}: it is True or False")


def settings_of_request(request: CompileRequest) -> CompileSettings:
    """Return the settings that the arguments of `trt_rt.compile` give.

    Raises
    ------
    CompileError
        A setting is unknown, or has a value that it cannot have.
    BackendError
        The backend cannot build here.
    """
    device = model_device(request.model, (request.inputs, request.arg_inputs, request.kwarg_inputs))
    options = _build_options(request.precision, request.build_settings)
    exclusions = Exclusions.of(request.torch_executed_ops, request.torch_executed_modules, request.model)
    return CompileSettings(
        backend=_choose_backend(request.backend, device),
        device=device,
        exclusions=exclusions,
        options=options,
        min_block_size=request.min_block_size,
        require_full_compilation=request.require_full_compilation,
        truncate_double=request.truncate_double,
    )


def settings_of_options(
    options: Mapping[str, Any], module: torch.nn.Module, examples: Sequence[Any]
) -> tuple[CompileSettings, Any]:
    """Return the settings, and the cache's folder, that a dict of parameters of `trt_rt.compile` gives.

    Raises
    ------
    CompileError
        An option is unknown, or is none where there are no example inputs to give.
    """
    left = dict(options)
    device = model_device(module, examples)
    backend = _choose_backend(left.pop("backend", "auto"), device)
    backend.require(device)
    exclusions = Exclusions.of(
        left.pop("torch_executed_ops", ()), left.pop("torch_executed_modules", ()), None
    )
    min_block_size = left.pop("min_block_size", DEFAULT_MIN_BLOCK_SIZE)
    require_full = left.pop("require_full_compilation", False)
    truncate_double = left.pop("truncate_double", False)
    cache_dir = left.pop("cache_dir", "auto")
    settings = CompileSettings(
        backend=backend,
        device=device,
        exclusions=exclusions,
        options=_build_options("strong", left),
        min_block_size=min_block_size,
        require_full_compilation=require_full,
        truncate_double=truncate_double,
    )
    return settings, cache_dir


def _build_options(precision: Precision, settings: Mapping[str, Any]) -> BuildOptions:
    known = sorted({field.name for field in fields(BuildOptions)} - {"precision", "progress"})
    for name in settings:
        if name not in known:
            parameters = [field.name for field in fields(CompileRequest)]
            near = get_close_matches(name, [*known, *parameters], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise CompileError(f"compile has no setting {name!r}: {hint}")
    return BuildOptions(precision=precision, **settings)


def _choose_backend(wanted: str | Backend, device: torch.device) -> Backend:
    if wanted == "auto" and device.type == "cpu":
        # TensorRT-RTX would build here, and could not run what it has built.
        return load("reference")
    return choose_builder(wanted)
