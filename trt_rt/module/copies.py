"""Copies and pickles of modules."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch

__all__ = ["copy_of", "deep_copy_of", "pickled", "replica_of"]

Module = TypeVar("Module", bound=torch.nn.Module)

Construct = Callable[[type[Module], Any, dict[str, Any]], Module]
"""Makes a module of a class from an engine or a plan and the constructor's keyword arguments."""

# Arguments of the constructor that are attributes of the module.
_ARGUMENTS = (
    "input_binding_names",
    "output_binding_names",
    "name",
    "settings",
    "weight_name_map",
    "requires_output_allocator",
    "max_contexts",
    "aliased_io",
    "aliased_outputs",
    "move_inputs",
)
# Made anew by the constructor of a copy. Everything else in a module's dict is copied with it.
_SET_BY_CONSTRUCTOR = frozenset(
    {
        "name",
        "settings",
        "weight_name_map",
        "requires_output_allocator",
        "max_contexts",
        "aliased_outputs",
        "move_inputs",
        "_aliased_io",
        "_binding_names",
        "_engine",
        "_executors",
        "_in_graphs",
        "_inputs",
        "_load",
        "_outputs",
        "_setting_up",
        "_compiled_call_impl",
    }
)


def copy_of(module: Module, construct: Construct[Module]) -> Module:
    """Return a `TRTModule` over the same engine; its other attributes are the same objects."""
    copy = _constructed(module, construct)
    copy.__setstate__(_own_state(module))  # type: ignore[no-untyped-call]
    return copy


def deep_copy_of(module: Module, construct: Construct[Module], memo: dict[int, Any]) -> Module:
    """Return a `TRTModule` over the same engine; its other attributes are copies."""
    copy = _constructed(module, construct)
    memo[id(module)] = copy  # before the attributes are copied, because they may refer to the module
    copy.__setstate__(deepcopy(_own_state(module), memo))  # type: ignore[no-untyped-call]
    return copy


def replica_of(module: Module, construct: Construct[Module]) -> Module:
    """Return a copy whose dicts of parameters, buffers and submodules are its own."""
    replica = copy_of(module, construct)
    replica._parameters = {}
    replica._buffers = module._buffers.copy()
    replica._modules = module._modules.copy()
    replica._is_replica = True  # type: ignore[assignment]
    return replica


def pickled(
    module: Module, construct: Construct[Module]
) -> tuple[Construct[Module], tuple[Any, ...], dict[str, Any]]:
    """Return the result of ``__reduce__``: the plan, the constructor's arguments, the other attributes."""
    engine: Any = module.engine
    arguments = {**_arguments(module), "backend": engine.backend, "device": str(engine.device)}
    return construct, (type(module), engine.serialize(), arguments), _own_state(module)


def _constructed(module: Module, construct: Construct[Module]) -> Module:
    return construct(type(module), module.engine, _arguments(module))


def _arguments(module: torch.nn.Module) -> dict[str, Any]:
    return {name: getattr(module, name) for name in _ARGUMENTS}


def _own_state(module: torch.nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _SET_BY_CONSTRUCTOR}
