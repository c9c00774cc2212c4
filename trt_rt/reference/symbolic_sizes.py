"""torch.export's symbolic sizes."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["expression_of", "static_shape"]


def static_shape(sizes: Any) -> tuple[int, ...]:
    """Return a shape with -1 for each symbolic size."""
    return tuple(int(size) if expression_of(size) is None else -1 for size in sizes)


def expression_of(size: Any) -> Any:
    """Return the sympy expression of a symbolic size; None for a number."""
    if isinstance(size, torch.SymInt):
        expression = size.node.expr
        return None if expression.is_number else expression
    return None
