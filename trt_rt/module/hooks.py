"""The dicts in which PyTorch keeps the hooks that a module's call runs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.modules.module as _torch_module

__all__ = ["INSTANCE_HOOKS", "hooks_of"]

# Where nn.Module keeps hooks: those of one module, and those of all modules.
INSTANCE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
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
