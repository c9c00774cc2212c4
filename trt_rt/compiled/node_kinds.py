"""Kinds of nodes in a program's graph."""

from __future__ import annotations

import operator

import torch
from torch.fx import Node

__all__ = ["CHEAP_VIEWS", "is_number", "is_view"]

CHEAP_VIEWS = frozenset(
    {
        torch.ops.aten.view.default,
        torch.ops.aten._unsafe_view.default,
        torch.ops.aten.reshape.default,
        torch.ops.aten.flatten.using_ints,
        torch.ops.aten.unflatten.int,
        torch.ops.aten.squeeze.default,
        torch.ops.aten.squeeze.dim,
        torch.ops.aten.squeeze.dims,
        torch.ops.aten.unsqueeze.default,
    }
)
"""Views of contiguous tensors that are contiguous: an engine returns one in the memory of what it views."""

_ALSO_VIEWS = frozenset({torch.ops.aten.reshape.default, torch.ops.aten.contiguous.default})
"""Operators that return a view where they can, without being tagged as views."""


def is_number(node: Node) -> bool:
    """Whether a node's value is a symbolic number."""
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool))


def is_view(node: Node) -> bool:
    """Whether an operator's result has the memory of its argument."""
    if node.target is operator.getitem:
        return isinstance(node.args[0], Node) and is_view(node.args[0])
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and (
        target.is_view or target in _ALSO_VIEWS or target in CHEAP_VIEWS
    )
