"""New weights for engines that are loaded, with nothing built again."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt.backend.engine_refitter import EngineRefitter
from trt_rt.engine import Engine
from trt_rt.errors import BackendError, ExecutionError, InputTypeError, InputValueError, PlanError
from trt_rt.module import TRTModule
from trt_rt.placement import current_device
from trt_rt.runtime.find_engines import find_engines

__all__ = ["RefitResult", "refit"]

# Of Torch-TensorRT: weights that it computed while it built the engine.
_CONSTANTS = "constant_mapping"

# One at a time, so that no engine changes between being checked and being changed.
_lock = threading.RLock()


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
    with _lock:
        changes = _changes(find_engines(module), state_dict, strict)
        missing = tuple(name for change in changes for name in change.missing)
        used = {key for change in changes for key in change.used}
        unexpected = tuple(key for key in state_dict if key not in used)
        if strict:
            _refuse_leftovers(changes, unexpected)
        _apply(change for change in changes if change.count)
        return RefitResult(missing, unexpected)


def _refuse_leftovers(changes: Iterable[_Change], unexpected: tuple[str, ...]) -> None:
    for change in changes:
        if change.missing:
            raise InputValueError(
                f"engine {change.engine.name!r} has weights for which the state dict has nothing: "
                f"{change.missing}. Add them, name their keys in weight_name_map, or leave them as they are "
                "with strict=False."
            )
    if unexpected:
        raise InputValueError(
            f"the state dict has keys that are no engine's weights: {list(unexpected)}, so their values "
            "would be lost. A builder may have merged them into other weights; name them in weight_name_map, "
            "remove them from the state dict, or pass strict=False."
        )


def _changes(
    modules: Iterable[TRTModule], state_dict: Mapping[str, torch.Tensor], strict: bool
) -> list[_Change]:
    """The checked new weights of every engine; nothing has changed yet."""
    name_maps: dict[Engine, dict[str, Any]] = {}
    for module in modules:
        name_maps.setdefault(module.engine, {}).update(module.weight_name_map or {})
    changes = []
    refusal: BackendError | None = None
    for engine, name_map in name_maps.items():
        try:
            refitter = engine.new_refitter()
        except BackendError as error:
            if strict:
                raise
            refusal = error
            continue
        change = _Change(engine, refitter)
        change.look_up(name_map, state_dict)
        changes.append(change)
    if refusal is not None and not changes:
        raise refusal
    return changes


class _Change:
    """New weights for one engine.

    Attributes
    ----------
    engine, refitter
        What changes, and how.
    missing : list of str
        Weights for which there is no value.
    used : set of str
        Keys of the state dict.
    count : int
        Weights that change.
    """

    def __init__(self, engine: Engine, refitter: EngineRefitter) -> None:
        self.engine = engine
        self.refitter = refitter
        self.missing: list[str] = []
        self.used: set[str] = set()
        self.count = 0

    def look_up(self, name_map: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> None:
        """Find and check a value for every weight.

        Raises
        ------
        InputError
            If one does not fit, or TensorRT wants more of them.
        """
        constants = name_map.get(_CONSTANTS, {})
        for name in self.refitter.names:
            key = self._key(name, name_map)
            if key in state_dict:
                self.used.add(key)
                self._set(name, f"state_dict[{key!r}]", state_dict[key])
            elif name in constants:
                self._set(
                    name, f"weight_name_map[{_CONSTANTS!r}][{name!r}]", torch.as_tensor(constants[name])
                )
            else:
                self.missing.append(name)
        needed = self.refitter.missing if self.count else []
        if needed:
            raise InputValueError(
                f"engine {self.engine.name!r} has merged weights that are in the state dict with {needed}, "
                "so these must be in it too."
            )

    def make(self) -> None:
        """Give the engine its new weights; it must have no contexts.

        Raises
        ------
        ExecutionError
            If TensorRT fails at it.
        """
        device = self.engine.device
        on_cuda = device.type == "cuda"
        if on_cuda:
            # TensorRT reads weights on the device without regard to the stream that writes them.
            torch.cuda.current_stream(device).synchronize()
        with current_device(device):
            succeeded = self.refitter.refit()
        if not succeeded:
            raise ExecutionError(
                f"engine {self.engine.name!r} could not be refitted; it has the weights that it had. "
                f"{self.refitter.last_error()}"
            )

    def _key(self, name: str, name_map: Mapping[str, Any]) -> str:
        entry = name_map.get(name, name)
        key = entry[0] if isinstance(entry, (tuple, list)) and len(entry) == 2 else entry
        if not isinstance(key, str):
            raise InputTypeError(
                f"weight_name_map has {entry!r} for weight {name!r} of engine {self.engine.name!r}, where a "
                "key of the state dict is needed, or a pair of a key and a dtype. Compute a weight that is "
                f"made of several, take it out of the map, and put it into the state dict as {name!r}."
            )
        return key

    def _set(self, name: str, source: str, value: Any) -> None:
        value = self._checked(name, source, value)
        on_engine = value.device == self.engine.device
        if not self.refitter.set(name, value.contiguous() if on_engine else value.cpu().contiguous()):
            raise InputValueError(
                f"{source} was refused for weight {name!r} of engine {self.engine.name!r}. "
                f"{self.refitter.last_error()}"
            )
        self.count += 1

    def _checked(self, name: str, source: str, value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            raise InputTypeError(
                f"{source} is {type(value).__name__}, and weight {name!r} needs a torch.Tensor."
            )
        value = value.detach()
        wanted, count, type_name = self.refitter.prototype(name)
        what = f"weight {name!r} of engine {self.engine.name!r}"
        if value.is_meta or value.layout is not torch.strided or type(value) is not torch.Tensor:
            raise InputTypeError(
                f"{source} is {type(value).__name__} on {value.device} of layout {value.layout}; {what} "
                "needs an ordinary dense tensor that has values."
            )
        if value.dtype != wanted:
            allowed = f"{wanted}: convert it with .to({wanted})" if wanted else f"{type_name}: nothing fits"
            raise InputTypeError(f"{source} is {value.dtype}, and {what} is {allowed}.")
        if value.numel() != count:
            raise InputValueError(
                f"{source} has {value.numel()} elements, its shape is {list(value.shape)}, and {what} has "
                f"{count}."
            )
        return value


def _apply(changes: Iterable[_Change]) -> None:
    """Change all engines, or none; one at a time, so that no thread holds what another one waits for."""
    plans: dict[Engine, bytes] = {}
    try:
        for change in changes:
            plans[change.engine] = _change_one(change)
    except BaseException:
        with ExitStack() as restoring:  # restores all of them, and raises what any has raised
            for engine, plan in plans.items():
                restoring.callback(_go_back, engine, plan)
        raise


def _change_one(change: _Change) -> bytes:
    """Change one engine, or leave it as it was; returns its plan of before."""
    with change.engine.without_contexts():
        plan = change.engine.serialize()
        try:
            change.make()
        except BaseException:
            _restore(change.engine, plan)
            raise
    return plan


def _go_back(engine: Engine, plan: bytes) -> None:
    with engine.without_contexts():
        _restore(engine, plan)


def _restore(engine: Engine, plan: bytes) -> None:
    try:
        engine.restore(plan)
    except PlanError as error:
        raise ExecutionError(
            f"a refit failed half-way, and engine {engine.name!r} could not go back to the weights that it "
            f"had, so it was closed; load it again. {error}"
        ) from error
