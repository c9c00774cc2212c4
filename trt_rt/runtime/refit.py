"""New weights for loaded engines, without a new build."""

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
from trt_rt.module.flags import checked_flag
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["RefitResult", "refit"]

# One at a time, so that no engine changes between being checked and being changed.
_gate = Gate("refit was called from within a refit.")


@dataclass(frozen=True)
class RefitResult:
    """The weights and keys that `refit` did not use; both are empty after a strict refit.

    Attributes
    ----------
    missing : tuple of str
        Weights of engines without a value in the state dict; they did not change.
    unexpected : tuple of str
        Keys of the state dict that belong to no weight of an engine.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@takes_compiled_module
def refit(
    module: torch.nn.Module | ExportedProgram,
    state_dict: Mapping[str, torch.Tensor],
    *,
    strict: bool = True,
) -> RefitResult:
    """Give the engines of a module new weights.

    A weight of an engine is looked up in `state_dict` under the key that its module's ``weight_name_map`` has
    for it, or under its own name. The map goes from names of weights to keys, or to pairs of a key and a
    dtype, like Torch-TensorRT's map. trt_rt does not use the dtype, because the engine knows its own. A
    ``"constant_mapping"`` in the map, from names of weights to arrays, gives values that no state dict has.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or a tree of modules or a program with some. Only engines change: load the weights of
        PyTorch's own modules with ``load_state_dict``. An engine that several modules share changes for all.
    state_dict : mapping of str to torch.Tensor
        The new weights, as in a module's ``state_dict()``. Each has the dtype and the number of elements of
        the engine's weight, on any device. TensorRT does not report shapes, and nothing is cast. The tensors
        can be changed or freed after this function returns.
    strict : bool, optional
        Whether every weight of every engine must be in `state_dict`, every key must be used, and every engine
        must be refittable.

    Returns
    -------
    RefitResult

    Raises
    ------
    BackendError
        An engine was not built to be refitted, or its backend cannot refit.
    InputError
        A value does not fit. The error is also a ValueError or a TypeError. It names the weight, the key, the
        value and what is allowed.
    ExecutionError
        TensorRT fails to refit, or CUDA reports that work in flight has failed.
    ClosedError
        An engine was closed.
    torch.OutOfMemoryError, MemoryError
        There is no memory for a copy of a weight or of the plan.

    Notes
    -----
    A refit changes all engines or none: after an error every engine has its earlier weights. To go back, each
    plan is serialized first, which takes as much host memory as the plan has bytes.

    Calls of an engine wait while it changes. Several engines change one after the other. Afterwards the next
    calls make new execution contexts and CUDA graphs. Modes, profiles and budgets stay. From then on
    ``Engine.serialize`` returns the new weights.

    Examples
    --------
    >>> network = torch.nn.Linear(4, 2)
    >>> plan = build(network, (torch.zeros(3, 4),), backend="reference", refittable=True)
    >>> refit(TRTModule(plan, device="cpu"), torch.nn.Linear(4, 2).state_dict())
    RefitResult(missing=(), unexpected=())
    """
    if not isinstance(state_dict, Mapping):
        hint = "; pass its state_dict()" if isinstance(state_dict, torch.nn.Module) else ""
        raise InputTypeError(
            f"state_dict must be a mapping from keys to tensors, not {type(state_dict).__name__}{hint}."
        )
    checked_flag("strict", strict)
    modules = find_engines(module)
    for each in modules:
        each.engine.context_users.refuse_own_call()
    return _gate.run(_refit, modules, state_dict, strict)


def _refit(modules: Iterable[TRTModule], state_dict: Mapping[str, torch.Tensor], strict: bool) -> RefitResult:
    refits = _look_up(modules, state_dict, strict)
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
    """Return the new weights of every engine, checked, without changing anything yet."""
    name_maps: dict[Engine, dict[str, Any]] = {}
    for module in modules:
        name_maps.setdefault(module.engine, {}).update(module.weight_name_map or {})
    refits = []
    refusal: BackendError | None = None
    for engine, name_map in name_maps.items():
        try:
            engine_refit = EngineRefit(engine)
        except BackendError as error:
            if strict:
                raise
            refusal = error
            continue
        engine_refit.look_up(name_map, state_dict)
        refits.append(engine_refit)
    if refusal is not None and not refits:
        raise refusal
    return refits
