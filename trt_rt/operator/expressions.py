"""Sizes as expressions over the sizes of inputs, such as ``2*s0 + 1``.

They come from files, so they are parsed and checked, and never given to ``eval``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.errors import PlanError

__all__ = ["Size", "is_symbol", "parse_size"]

Size = Callable[[Mapping[str, Any]], Any]
"""From the sizes of symbols (int or SymInt) to a size."""

_LONGEST = 500
_LARGEST = 2**63
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: lambda left, right: left % right,
}
_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {"max": torch.sym_max, "min": torch.sym_min}


def is_symbol(text: str) -> bool:
    """Return whether a text can be the name of a size."""
    return text.isascii() and text.isidentifier() and text not in _FUNCTIONS


def parse_size(text: str, symbols: Collection[str]) -> Size:
    """Return the function that an expression describes.

    Parameters
    ----------
    text : str
        Integers, symbols, ``+ - * // %``, ``max`` and ``min``, and parentheses; at most 500 characters.
    symbols : collection of str
        The names that may occur.

    Raises
    ------
    PlanError
        The text is anything else.
    """
    if len(text) > _LONGEST:
        raise PlanError(f"a size is an expression of {len(text)} characters; at most {_LONGEST} are allowed.")
    try:
        return _read(ast.parse(text, mode="eval").body, symbols)
    except (SyntaxError, ValueError, RecursionError, MemoryError, _Unknown) as error:
        raise PlanError(
            f"{text!r} is no size: allowed are integers, {sorted(symbols)}, + - * // %, max, min ({error})."
        ) from None


class _Unknown(Exception):
    """A part of an expression that is not allowed."""


def _read(node: ast.expr, symbols: Collection[str]) -> Size:
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value < _LARGEST:
        number = node.value
        return lambda sizes: number
    if isinstance(node, ast.Name) and node.id in symbols:
        name = node.id
        return lambda sizes: sizes[name]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        negated = _read(node.operand, symbols)
        return lambda sizes: -negated(sizes)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _applied(_OPERATIONS[type(node.op)], _read(node.left, symbols), _read(node.right, symbols))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = _FUNCTIONS.get(node.func.id)
        if function is not None and len(node.args) >= 2:
            result, *rest = (_read(argument, symbols) for argument in node.args)
            for other in rest:
                result = _applied(function, result, other)
            return result
    raise _Unknown(f"not {ast.unparse(node)!r}")


def _applied(function: Callable[[Any, Any], Any], left: Size, right: Size) -> Size:
    return lambda sizes: function(left(sizes), right(sizes))


hide_from_dynamo(globals())
