"""Symbolic sizes in programs: read by this parser, and never given to ``sympify``, which evaluates text."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sympy
import torch.utils._sympy.functions as torch_sympy

__all__ = ["ExpressionError", "parse_expression"]

_LONGEST = 10_000
_LARGEST = 2**64
_LARGEST_POWER = 64
_SYMBOL = re.compile("[a-z]{1,4}[0-9]{1,9}")
_FLOAT = re.compile(r"-?[0-9]{1,40}(\.[0-9]{0,40})?(e[+-]?[0-9]{1,3})?")
_ASSUMPTIONS = frozenset({"integer", "nonnegative", "positive", "real", "finite", "nonzero"})


class ExpressionError(ValueError):
    """A text is not an expression as torch.export writes them."""


def _functions() -> dict[str, Callable[..., Any]]:
    of_sympy = (
        "Add",
        "And",
        "Equality",
        "GreaterThan",
        "LessThan",
        "Max",
        "Min",
        "Mul",
        "Not",
        "Or",
        "StrictGreaterThan",
        "StrictLessThan",
        "Unequality",
    )
    of_torch = (
        "CeilDiv",
        "CeilToInt",
        "CleanDiv",
        "FloatTrueDiv",
        "FloorDiv",
        "FloorToInt",
        "Identity",
        "IntTrueDiv",
        "Max",
        "Min",
        "Mod",
        "ModularIndexing",
        "PythonMod",
        "RoundToInt",
        "ToFloat",
        "TruncToFloat",
        "TruncToInt",
        "Where",
    )
    found = {name: getattr(sympy, name) for name in of_sympy}
    found.update({name: getattr(torch_sympy, name) for name in of_torch if hasattr(torch_sympy, name)})
    return found


_FUNCTIONS = _functions()


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> Any:
    """Return the sympy expression that a text describes.

    Parameters
    ----------
    text : str
        As ``sympy.srepr`` writes it: calls of the functions of sizes, integers, symbols such as
        ``Symbol('s0', positive=True, integer=True)``.

    Raises
    ------
    ExpressionError
        The text is anything else.
    """
    if len(text) > _LONGEST:
        raise ExpressionError(
            f"an expression has {len(text):,} characters, and at most {_LONGEST:,} are allowed"
        )
    try:
        return _read(ast.parse(text, mode="eval").body)
    except ExpressionError:
        raise
    except Exception as error:  # what sympy's constructors raise is not theirs alone to choose
        raise ExpressionError(f"{text[:80]!r} is not an expression of sizes: {error}") from error


def _read(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return sympy.true if node.id == "true" else sympy.false
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ExpressionError(f"{ast.unparse(node)[:80]!r} is not allowed in an expression of sizes")
    name = node.func.id
    if name == "Symbol":
        return _symbol(node)
    if name in ("Integer", "Rational", "Float"):
        return _number(name, node)
    if node.keywords:
        raise ExpressionError(f"{name} has no keywords in an expression of sizes")
    arguments = [_read(argument) for argument in node.args]
    if name in ("Pow", "PowByNatural"):
        return _power(name, arguments)
    function = _FUNCTIONS.get(name)
    if function is None:
        raise ExpressionError(f"the function {name!r} is not allowed in an expression of sizes")
    return function(*arguments)


def _symbol(node: ast.Call) -> Any:
    (name,) = node.args
    if not isinstance(name, ast.Constant) or type(name.value) is not str or not _SYMBOL.fullmatch(name.value):
        raise ExpressionError("a symbol is named by letters and a number")
    assumptions = {}
    for keyword in node.keywords:
        value = keyword.value
        if (
            keyword.arg not in _ASSUMPTIONS
            or not isinstance(value, ast.Constant)
            or type(value.value) is not bool
        ):
            raise ExpressionError(f"{keyword.arg!r} is not allowed of a symbol")
        assumptions[keyword.arg] = value.value
    return sympy.Symbol(name.value, **assumptions)


def _number(name: str, node: ast.Call) -> Any:
    if name == "Float":
        text = node.args[0]
        if not isinstance(text, ast.Constant) or not _FLOAT.fullmatch(str(text.value)):
            raise ExpressionError("a number is written with digits")
        return sympy.Float(str(text.value), precision=53)
    values = [_integer(argument) for argument in node.args]
    if node.keywords or len(values) != (1 if name == "Integer" else 2):
        raise ExpressionError(f"{name} has other arguments")
    return sympy.Integer(values[0]) if name == "Integer" else sympy.Rational(*values)


def _integer(node: ast.expr) -> int:
    negate = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    value = node.operand if isinstance(node, ast.UnaryOp) and negate else node
    if not isinstance(value, ast.Constant) or type(value.value) is not int or value.value > _LARGEST:
        raise ExpressionError("an integer is written with digits, and is at most 2**64")
    return operator.neg(value.value) if negate else value.value


def _power(name: str, arguments: list[Any]) -> Any:
    base, exponent = arguments
    # A power of a number is computed at once, however large: 9**9**9 would never end.
    if not exponent.is_Integer or abs(int(exponent)) > _LARGEST_POWER or not base.free_symbols:
        raise ExpressionError(f"a power is that of a size, to an integer of at most {_LARGEST_POWER}")
    return sympy.Pow(base, exponent) if name == "Pow" else torch_sympy.PowByNatural(base, exponent)
