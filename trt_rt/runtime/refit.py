"""New weights for engines that are loaded, with nothing built again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt._core.critical import Gate
from trt_rt.engine import Engine
from trt_rt.engine.refit import EngineRefit, apply_refits
from trt_rt.errors import BackendError, InputTypeError, InputValueError
from trt_rt.module import TRTModule
from trt_rt.module.find_engines import find_engines

__all__ = ["RefitResult", "refit"]

# One at a time, so that no engine changes between being checked and being changed.
_gate = Gate("refit was called from within a refit.")


@dataclass(frozen=True)
class RefitResult:
    """What `refit` did not change; both are empty if it was strict.

    Attributes
    ----------
    missing : tuple of str
        Engines' weights for which the state dict had nothing, and which are as they were.
    unexpected : tuple of str
        Keys of the state dict that are no engine's.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def refit(
    module: torch.nn.Module | ExportedProgram,
    state_dict: Mapping[str, torch.Tensor],
    *,
    strict: bool = True,
) -> RefitResult:
    """Give the engines of a module new weights.

    A weight of an engine is looked up in `state_dict` under the key that its module's ``weight_name_map`` has
    for it, or under its own name. The map goes from names of weights to keys, or to pairs of a key and a
    dtype, as Torch-TensorRT's does; the dtype is not used, because the engine knows its own. A
    ``"constant_mapping"`` in it, from names of weights to arrays, gives values that no state dict has.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or a tree of modules or a program with some. Only engines change: load what belongs to
        PyTorch's own modules with ``load_state_dict``. An engine that several modules share changes for all.
    state_dict : mapping of str to torch.Tensor
        As a module's ``state_dict()``. Each of the engine's dtype and number of elements (TensorRT does not
        tell the shape), on any device. Nothing is cast. It can be changed or freed once this returns.
    strict : bool, optional
        Every weight of every engine must be in `state_dict`, every key must be used, and every engine must be
        refittable.

    Returns
    -------
    RefitResult

    Raises
    ------
    BackendError
        If an engine was not built to be refitted, or its backend cannot.
    InputError
        Also a ValueError or a TypeError: names the weight and the key, what came and what is allowed.
    ExecutionError
        If TensorRT fails at it, or CUDA reports that work in flight has failed.
    ClosedError
        If an engine was closed.
    torch.OutOfMemoryError, MemoryError
        If there is no memory for a copy of a weight or of the plan.

    Notes
    -----
    All or nothing: after an error every engine has the weights that it had. For that each plan is serialized
    first, which takes as much host memory as it has bytes.

    Calls of an engine wait while it changes; several engines change one after the other. Execution contexts
    and CUDA graphs are made anew afterwards; modes, profiles and budgets stay. From then on
    ``Engine.serialize`` gives the new weights.
    """
    if not isinstance(state_dict, Mapping):
        hint = "; pass its state_dict()" if isinstance(state_dict, torch.nn.Module) else ""
        raise InputTypeError(
            f"state_dict must be a mapping from keys to tensors, not {type(state_dict).__name__}{hint}."
        )
    return _gate.run(_refit, module, state_dict, strict)


def _refit(
    module: torch.nn.Module | ExportedProgram, state_dict: Mapping[str, torch.Tensor], strict: bool
) -> RefitResult:
    refits = _look_up(find_engines(module), state_dict, strict)
    missing = tuple(name for refit in refits for name in refit.missing)
    used = {key for refit in refits for key in refit.used}
    unexpected = tuple(key for key in state_dict if key not in used)
    if strict:
        _refuse_leftovers(refits, unexpected)
    apply_refits(refit for refit in refits if refit.count)
    return RefitResult(missing, unexpected)


def _refuse_leftovers(refits: Iterable[EngineRefit], unexpected: tuple[str, ...]) -> None:
    for refit in refits:
        if refit.missing:
            raise InputValueError(
                f"engine {refit.engine.name!r} has weights for which the state dict has nothing: "
                f"{refit.missing}. Add them, name their keys in weight_name_map, or leave them as they are "
                "with strict=False."
            )
    if unexpected:
        raise InputValueError(
            f"the state dict has keys that are no engine's weights: {list(unexpected)}, so their values "
            "would be lost. A builder may have merged them into other weights; name them in weight_name_map, "
            "remove them from the state dict, or pass strict=False."
        )


def _look_up(
    modules: Iterable[TRTModule], state_dict: Mapping[str, torch.Tensor], strict: bool
) -> list[EngineRefit]:
    """The checked new weights of every engine; nothing has changed yet."""
    name_maps: dict[Engine, dict[str, Any]] = {}
    for module in modules:
        name_maps.setdefault(module.engine, {}).update(module.weight_name_map or {})
    refits = []
    refusal: BackendError | None = None
    for engine, name_map in name_maps.items():
        try:
            refitter = engine.new_refitter()
        except BackendError as error:
            if strict:
                raise
            refusal = error
            continue
        engine_refit = EngineRefit(engine, refitter)
        engine_refit.look_up(name_map, state_dict)
        refits.append(engine_refit)
    if refusal is not None and not refits:
        raise refusal
    return refits
