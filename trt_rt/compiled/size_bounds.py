"""The smallest and the largest value of a symbolic size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._sympy.value_ranges import bound_sympy

__all__ = ["LARGEST_SIZE", "bounds", "expression"]

LARGEST_SIZE = 2**31 - 1
"""The largest dimension of a tensor in TensorRT."""


def expression(value: Any) -> Any:
    """Return the sympy expression of a symbolic number; a plain number is returned as it is."""
    return value.node.expr if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else value


def bounds(size: Any, ranges: Mapping[Any, Any]) -> tuple[int, int]:
    """Return the smallest and the largest value of a size; without an end, one more than a size can be."""
    found = expression(size)
    if isinstance(found, int):
        return found, found
    limits = bound_sympy(found, dict(ranges))
    high = limits.upper
    return max(int(limits.lower), 0), int(high) if high <= LARGEST_SIZE else LARGEST_SIZE + 1
