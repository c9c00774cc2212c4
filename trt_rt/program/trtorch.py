"""``trt_rt.compile(script_module, settings)``, the form of TRTorch, from which Torch-TensorRT came."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch

from trt_rt.compiled.partition import Partition
from trt_rt.compiled.torchscript import torchscript_calls, torchscript_module
from trt_rt.errors import CompileError
from trt_rt.program.inputs import Input
from trt_rt.program.pipeline import compile_model
from trt_rt.program.request import CompileRequest

__all__ = ["compile_torchscript"]

_PRECISIONS = {
    torch.float32: torch.float32,
    torch.float16: torch.float16,
    "fp32": torch.float32,
    "float": torch.float32,
    "f32": torch.float32,
    "fp16": torch.float16,
    "half": torch.float16,
    "f16": torch.float16,
}
_WITHOUT_EFFECT = (
    "allow_gpu_fallback",
    "capability",
    "debug",
    "max_batch_size",
    "num_avg_timing_iters",
    "num_min_timing_iters",
    "strict_types",
)
_KNOWN = (
    "input_shapes",
    "op_precision",
    "workspace_size",
    "refit",
    "device",
    "torch_fallback",
    *_WITHOUT_EFFECT,
)


def compile_torchscript(
    request: CompileRequest, settings: Mapping[str, Any]
) -> torch.jit.ScriptModule | Partition:
    """Compile a TorchScript module with TRTorch's settings.

    Parameters
    ----------
    request : CompileRequest
        The other arguments of `trt_rt.compile`. Its model is not changed.
    settings : mapping
        TRTorch's.

    Returns
    -------
    torch.jit.ScriptModule or Partition
        A partition if the request is a dry run.

    Raises
    ------
    CompileError
        A setting is unknown or not possible, the model is no TorchScript module, or cannot be converted.
    """
    model = request.model
    if not isinstance(model, torch.jit.ScriptModule):
        raise CompileError(
            f"settings in a dict go with a TorchScript module, and this is a {type(model).__name__}: give "
            "compile the inputs by name, as in trt_rt.compile(model, inputs=[...])"
        )
    _refuse_unknown(settings)
    dtype = _precision(settings.get("op_precision", torch.float32))
    inputs = _inputs(settings.get("input_shapes"), dtype)
    if dtype is torch.float16:
        # Without gradients, as a copy's parameters would else be results of an operator.
        with torch.no_grad(), torchscript_calls():
            model = copy.deepcopy(model).half()  # casts in place
    compiled = compile_model(
        replace(
            request,
            model=model,
            inputs=inputs,
            build_settings={**request.build_settings, **_build_settings(settings)},
            **_fallback(settings.get("torch_fallback") or {}),
        )
    )
    if isinstance(compiled, Partition):
        return compiled
    return torchscript_module(compiled.exported())


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in _KNOWN:
            near = get_close_matches(str(name), _KNOWN, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"TRTorch's are {', '.join(_KNOWN)}"
            raise CompileError(f"settings have no {name!r}: {hint}")
    idle = [name for name in _WITHOUT_EFFECT if settings.get(name)]
    if idle:
        warnings.warn(f"the settings {', '.join(idle)} have no effect in trt_rt", stacklevel=5)


def _precision(wanted: Any) -> torch.dtype:
    if wanted in (torch.int8, "int8", "i8"):
        raise CompileError(
            "op_precision: torch.int8 needs quantize and dequantize operators in the model. Quantize the "
            "Python model with torchao's or modelopt's PT2E flow, export it with torch.export, and give that "
            "to trt_rt.compile; calibrators are not supported"
        )
    if wanted not in _PRECISIONS:
        raise CompileError(f"op_precision is {wanted!r}: torch.float and torch.half are possible")
    return _PRECISIONS[wanted]


def _inputs(shapes: Any, dtype: torch.dtype) -> list[Input]:
    if not isinstance(shapes, Sequence) or isinstance(shapes, str) or not shapes:
        raise CompileError(
            'settings need "input_shapes": a list with a shape, or {"min": ..., "opt": ..., "max": ...}, for '
            "each input"
        )
    inputs = []
    for position, shape in enumerate(shapes):
        name = f"input_shapes[{position}]"
        if isinstance(shape, Mapping):
            if set(shape) != {"min", "opt", "max"}:
                raise CompileError(f"{name} has {sorted(shape)}: it needs min, opt and max")
            low, usual, high = (_sizes(shape[key], name) for key in ("min", "opt", "max"))
            inputs.append(Input(min_shape=low, opt_shape=usual, max_shape=high, dtype=dtype, name=name))
        else:
            inputs.append(Input(_sizes(shape, name), dtype=dtype, name=name))
    return inputs


def _sizes(shape: Any, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in shape)
    except (TypeError, ValueError):
        raise CompileError(f"{name}: {shape!r} is no shape, which is a list of integers") from None


def _build_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of engines, by the names of `trt_rt.build`."""
    device = settings.get("device") or {}
    if "dla" in str(device.get("device_type", "")).lower() or device.get("dla_core"):
        raise CompileError("engines for a DLA are not supported: leave device_type and dla_core out")
    found: dict[str, Any] = {}
    if settings.get("workspace_size"):
        found["workspace_bytes"] = int(settings["workspace_size"])
    if settings.get("refit"):
        found["refittable"] = True
    return found


def _fallback(fallback: Mapping[str, Any]) -> dict[str, Any]:
    """What PyTorch may run, by the names of `trt_rt.compile`."""
    found: dict[str, Any] = {}
    if not fallback.get("enabled", True):
        found["require_full_compilation"] = True
    if "min_block_size" in fallback:
        found["min_block_size"] = int(fallback["min_block_size"])
    names = fallback.get("forced_fallback_operators", fallback.get("forced_fallback_ops", ()))
    if names:
        found["torch_executed_ops"] = [str(name).replace("::", ".") for name in names]
    return found
