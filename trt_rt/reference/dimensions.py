"""Derives the dimensions of a plan's tensors from torch.export's symbolic sizes."""

from __future__ import annotations

from typing import Any

import torch

from trt_rt.errors import CompileError
from trt_rt.reference.exporting import ExportedNetwork
from trt_rt.reference.io_tensors import LARGEST_DIMENSION, DimensionRelation
from trt_rt.reference.symbolic_sizes import expression_of, static_shape

__all__ = ["Dimensions"]


class Dimensions:
    """The symbolic sizes of a network's inputs.

    Parameters
    ----------
    network : ExportedNetwork
        The network.
    names : list of str
        Names of its inputs.

    Raises
    ------
    CompileError
        A dimension is derived from a symbol that is no dimension of an input.
    """

    def __init__(self, network: ExportedNetwork, names: list[str]) -> None:
        self._ranges = network.ranges
        self._sizes = [list(node.meta["val"].shape) for node in network.inputs]
        # The first input and axis whose size is the symbol itself.
        self._sources: dict[Any, tuple[int, int]] = {}
        for number, sizes in enumerate(self._sizes):
            for axis, size in enumerate(sizes):
                expression = expression_of(size)
                if expression is not None and expression.is_Symbol:
                    self._sources.setdefault(expression, (number, axis))
        self._names = names

    def shape(self, number: int) -> tuple[int, ...]:
        """Return an input's shape, -1 for each dynamic dimension."""
        return static_shape(self._sizes[number])

    def bounds(self, number: int, axis: int) -> tuple[int, int]:
        """Return the smallest and largest size that export allows for a dimension."""
        size = self._sizes[number][axis]
        expression = expression_of(size)
        if expression is None:
            return int(size), int(size)
        if expression.is_Symbol:
            found = self._ranges[expression]
            low, high = found.lower, found.upper
        else:
            ((symbol, scale, offset),) = [_linear(expression, self._names[number], axis)]
            found = self._ranges[symbol]
            low, high = scale * found.lower + offset, scale * found.upper + offset
        # Without a bound it is an infinity, which compares with integers and converts to none.
        return max(int(low), 0), LARGEST_DIMENSION if high > LARGEST_DIMENSION else int(high)

    def relations(self) -> tuple[DimensionRelation, ...]:
        """Return the relations that must hold between input dimensions.

        Raises
        ------
        CompileError
            A dimension depends on one that no input has.
        """
        relations = []
        for number, sizes in enumerate(self._sizes):
            for axis, size in enumerate(sizes):
                expression = expression_of(size)
                if expression is None or self._sources.get(expression) == (number, axis):
                    continue
                symbol, scale, offset = _linear(expression, self._names[number], axis)
                if symbol not in self._sources:
                    raise CompileError(
                        f"dimension {axis} of {self._names[number]!r} is {expression}, and no input has the "
                        f"dimension {symbol}: such networks cannot be built"
                    )
                relations.append(DimensionRelation(number, axis, *self._sources[symbol], scale, offset))
        return tuple(relations)

    def known_dims(self, value: torch.Tensor) -> tuple[int | tuple[int, int] | None, ...]:
        """Return each size of an output as a number, as the input and axis that it equals, or as None."""
        known: list[int | tuple[int, int] | None] = []
        for size in value.shape:
            expression = expression_of(size)
            known.append(int(size) if expression is None else self._sources.get(expression))
        return tuple(known)


def _linear(expression: Any, name: str, axis: int) -> tuple[Any, int, int]:
    """Split ``scale * symbol + offset``, the only form that torch.export.Dim can derive."""
    symbols = list(expression.free_symbols)
    if len(symbols) == 1:
        scale, offset = expression.coeff(symbols[0]), expression.subs(symbols[0], 0)
        if (expression - scale * symbols[0] - offset).expand() == 0:
            return symbols[0], int(scale), int(offset)
    raise CompileError(f"dimension {axis} of {name!r} is {expression}: such networks cannot be built")
