"""Evaluates the statements of a function in TorchScript.

The values are nodes of a graph, numbers, strings, tuples, lists, dicts, and modules. What a name that is no
local one means, and what an operator does, is the affair of `Meanings`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.fx import Node

from trt_rt.archive.pickle_reader import PickledObject
from trt_rt.errors import ArchiveError

__all__ = ["FunctionBody", "Meanings", "TracedNumber", "is_number", "plain_number"]

_LARGEST = 2**63
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class Meanings(Protocol):
    """What statements ask for."""

    def attribute(self, owner: PickledObject, name: str) -> Any:
        """Return an attribute of a module."""

    def constant(self, name: str) -> Any:
        """Return a constant of the file."""

    def device(self, text: Any) -> torch.device:
        """Return the device that a text names."""

    def function(self, module: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate a function of the file."""

    def method(self, owner: PickledObject, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Evaluate a method of a module."""

    def operator(self, namespace: str, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call an operator."""

    def spend(self, steps: int) -> None:
        """Count steps of the evaluation."""

    def refuse(self, node: ast.AST) -> ArchiveError:
        """Return the error for a statement or an expression that is not evaluated."""


class TracedNumber:
    """A number that the tracer holds in a tensor without dimensions, which it makes a number again later."""

    def __init__(self, value: Any) -> None:
        self.value = value


class FunctionBody:
    """The statements of one function, with its local names."""

    def __init__(self, meanings: Meanings, names: dict[str, Any]) -> None:
        self._meanings = meanings
        self._names = names

    def run(self, statements: Sequence[ast.stmt]) -> tuple[Any, ...]:
        """Evaluate statements; what is returned, in a tuple, or an empty tuple."""
        for statement in statements:
            if isinstance(statement, ast.Return) and statement.value is not None:
                return (self._value(statement.value),)
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                self._assign(statement.targets[0], self._value(statement.value))
            elif isinstance(statement, ast.Expr):
                self._value(statement.value)
            elif isinstance(statement, ast.If):
                test = self._value(statement.test)
                if type(test) is not bool:
                    raise self._meanings.refuse(statement)
                returned = self.run(statement.body if test else statement.orelse)
                if returned:
                    return returned
            elif not isinstance(statement, ast.Pass):
                raise self._meanings.refuse(statement)
        return ()

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._names[target.id] = value
        elif isinstance(target, ast.Tuple) and isinstance(value, (list, tuple)):
            if len(target.elts) != len(value):
                raise self._meanings.refuse(target)
            for part, item in zip(target.elts, value, strict=True):
                self._assign(part, item)
        else:
            raise self._meanings.refuse(target)

    def _value(self, node: ast.expr) -> Any:
        evaluate = _EXPRESSIONS.get(type(node))
        if evaluate is None:
            raise self._meanings.refuse(node)
        self._meanings.spend(1)
        found = evaluate(self, node)
        if isinstance(found, (list, tuple, dict)):
            self._count(found)
        return found

    def _count(self, value: Any) -> None:
        """Spend a step for every item of a nested value, also for those that it has several times."""
        waiting = [value]
        while waiting:
            items = waiting.pop()
            self._meanings.spend(len(items))
            parts = items.values() if isinstance(items, dict) else items
            waiting += [part for part in parts if isinstance(part, (list, tuple, dict))]

    def _constant(self, node: Any) -> Any:
        if type(node.value) in (bool, int, float, str, type(None)):
            if type(node.value) is int and node.value >= _LARGEST:
                raise self._meanings.refuse(node)
            return node.value
        raise self._meanings.refuse(node)

    def _name(self, node: Any) -> Any:
        if node.id in self._names:
            return self._names[node.id]
        if node.id in _FLOATS:
            return _FLOATS[node.id]
        raise self._meanings.refuse(node)

    def _attribute(self, node: Any) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id == "CONSTANTS":
            return self._meanings.constant(node.attr)
        owner = self._value(node.value)
        if not isinstance(owner, PickledObject):
            raise self._meanings.refuse(node)
        return self._meanings.attribute(owner, node.attr)

    def _list(self, node: Any) -> list[Any]:
        return [self._value(item) for item in node.elts]

    def _tuple(self, node: Any) -> tuple[Any, ...]:
        return tuple(self._list(node))

    def _dict(self, node: Any) -> dict[Any, Any]:
        keys = [None if key is None else self._value(key) for key in node.keys]
        if not all(type(key) in (str, int) for key in keys):
            raise self._meanings.refuse(node)
        return dict(zip(keys, map(self._value, node.values), strict=True))

    def _negative(self, node: Any) -> Any:
        value = self._value(node.operand)
        if isinstance(node.op, ast.USub) and type(value) in (int, float):
            return -value
        if isinstance(node.op, ast.Not) and type(value) is bool:
            return not value
        raise self._meanings.refuse(node)

    def _item(self, node: Any) -> Any:
        owner, key = self._value(node.value), self._value(node.slice)
        try:
            if isinstance(owner, (list, tuple)) and type(key) is int:
                return owner[key]
            if isinstance(owner, dict) and type(key) in (str, int):
                return owner[key]
        except (IndexError, KeyError) as error:
            raise self._meanings.refuse(node) from error
        raise self._meanings.refuse(node)

    def _call(self, node: Any) -> Any:
        if any(each.arg is None for each in node.keywords):
            raise self._meanings.refuse(node)
        path = _dotted(node.func)
        if path and path[0] not in self._names:
            if path in (("annotate",), ("unchecked_cast",)) and len(node.args) == 2:
                return self._value(node.args[1])  # the first argument is a type
            args = [self._value(each) for each in node.args]
            kwargs = {each.arg: self._value(each.value) for each in node.keywords}
            return self._named_call(node, path, args, kwargs)
        if isinstance(node.func, ast.Attribute):
            owner = self._value(node.func.value)
            if isinstance(owner, PickledObject):
                args = [self._value(each) for each in node.args]
                kwargs = {each.arg: self._value(each.value) for each in node.keywords}
                return self._meanings.method(owner, node.func.attr, args, kwargs)
        raise self._meanings.refuse(node)

    def _named_call(
        self, node: ast.Call, path: tuple[str, ...], args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        if path == ("torch", "device") and len(args) == 1 and not kwargs:
            return self._meanings.device(args[0])
        if len(path) == 2 and path[0] == "torch":
            return self._meanings.operator("aten", path[1], args, kwargs)
        if len(path) == 3 and path[0] == "ops":
            return self._meanings.operator(path[1], path[2], args, kwargs)
        if len(path) > 2 and path[0] == "__torch__":
            return self._meanings.function(".".join(path[:-1]), path[-1], args, kwargs)
        if len(path) == 1 and path[0] in ("bool", "float", "int") and len(args) == 1 and not kwargs:
            return self._number(node, path[0], args[0])
        raise self._meanings.refuse(node)

    def _number(self, node: ast.Call, kind: str, value: Any) -> Any:
        value = plain_number(value)
        if kind == "float" and type(value) is str and value in _FLOATS:
            return _FLOATS[value]
        if kind == "int" and is_number(value) and not isinstance(value, (float, bool)):
            return value
        if type(value) not in (bool, int, float):
            raise self._meanings.refuse(node)
        try:
            return {"bool": bool, "float": float, "int": int}[kind](value)
        except (ValueError, OverflowError) as error:
            raise self._meanings.refuse(node) from error


_EXPRESSIONS: Mapping[type[ast.expr], Callable[[FunctionBody, Any], Any]] = {
    ast.Attribute: FunctionBody._attribute,
    ast.Call: FunctionBody._call,
    ast.Constant: FunctionBody._constant,
    ast.Dict: FunctionBody._dict,
    ast.List: FunctionBody._list,
    ast.Name: FunctionBody._name,
    ast.Subscript: FunctionBody._item,
    ast.Tuple: FunctionBody._tuple,
    ast.UnaryOp: FunctionBody._negative,
}


def _dotted(node: ast.expr) -> tuple[str, ...]:
    """The parts of a name with dots; an empty tuple for another expression."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return (*owner, node.attr) if owner else ()
    return ()


def plain_number(value: Any) -> Any:
    """Return the number that a traced number holds; another value as it is."""
    return value.value if isinstance(value, TracedNumber) else value


def is_number(value: Any) -> bool:
    """Return whether a value is a number, known or symbolic."""
    value = plain_number(value)
    found = value.meta["val"] if isinstance(value, Node) else value
    return isinstance(found, (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool))
