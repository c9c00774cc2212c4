"""The dicts in which PyTorch keeps the hooks that a module's call runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.modules.module as _torch_module

__all__ = ["INSTANCE_HOOKS", "hooks_of", "remove_forward_hooks"]

# Where nn.Module keeps hooks: those of one module, and those of all modules.
INSTANCE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Those that run before and after `forward`, and what the keys of their options are in.
_FORWARD_HOOKS = {
    "_forward_hooks": ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_forward_pre_hooks": ("_forward_pre_hooks_with_kwargs",),
}
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def hooks_of(module: torch.nn.Module) -> tuple[dict[Any, Any], ...]:
    """Return the dicts that hold the hooks of a module's call, its own and those of all modules."""
    own = [vars(module)[hook] for hook in INSTANCE_HOOKS]
    return (*own, *[vars(_torch_module)[hook] for hook in _GLOBAL_HOOKS])


def remove_forward_hooks(module: torch.nn.Module, *functions: Callable[..., Any]) -> None:
    """Remove functions from a module's forward hooks and forward pre-hooks, whoever has their handles."""
    for hooks, options in _FORWARD_HOOKS.items():
        own = vars(module)[hooks]
        for key in [key for key, function in own.copy().items() if function in functions]:
            for option in options:
                vars(module)[option].pop(key, None)
            own.pop(key, None)  # last: if an interrupt cuts this short, it is called again
