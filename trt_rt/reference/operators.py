"""Operators by name: those of PyTorch that plans may call, and arithmetic on sizes.

A plan names operators, and only names found here are ever resolved, so that a plan cannot reach any other
function.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.errors import PlanError
from trt_rt.reference.allowed_operators import ALLOWED_OPERATORS
from trt_rt.reference.arguments import Reference, references
from trt_rt.reference.parameters import Parameter, check_arguments, parameters_of
from trt_rt.reference.safe_operators import (
    BOUNDED_SPLITS,
    PORTABLE_VIEWS,
    SAFE_NUMBER_FUNCTIONS,
    SAFE_OPERATORS,
)

__all__ = ["NUMBER_FUNCTIONS", "Operator", "operator_name", "resolve"]

_LARGEST_INTEGER = 2**63
_MOST_NUMBERS = 3

NUMBER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "operator.add": operator.add,
    "operator.sub": operator.sub,
    "operator.mul": operator.mul,
    "operator.truediv": operator.truediv,
    "operator.floordiv": operator.floordiv,
    "operator.mod": operator.mod,
    "operator.neg": operator.neg,
    "operator.pos": operator.pos,
    "operator.abs": operator.abs,
    "operator.pow": operator.pow,
    "operator.eq": operator.eq,
    "operator.ne": operator.ne,
    "operator.lt": operator.lt,
    "operator.le": operator.le,
    "operator.gt": operator.gt,
    "operator.ge": operator.ge,
    "operator.and": operator.and_,
    "operator.or": operator.or_,
    "operator.not": operator.not_,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
    "math.sqrt": math.sqrt,
    "builtins.round": round,
    "torch.sym_float": torch.sym_float,
    "torch.sym_int": torch.sym_int,
    "torch.sym_ite": torch.sym_ite,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_not": torch.sym_not,
    "torch._sym_sqrt": torch._sym_sqrt,  # type: ignore[attr-defined]
}
"""Functions of numbers, by the names that plans give them."""

_ITEM = "operator.getitem"

_NAMES: dict[Callable[..., Any], str] = {function: name for name, function in NUMBER_FUNCTIONS.items()}
_NAMES[operator.getitem] = _ITEM

_STAND_INS = {**PORTABLE_VIEWS, **SAFE_OPERATORS, **BOUNDED_SPLITS}

_COMPARISONS = frozenset(
    f"aten.{name}.Scalar"
    for name in (
        *("eq", "ne", "lt", "le", "gt", "ge"),
        *("not_equal", "less", "less_equal", "greater", "greater_equal"),
    )
)


@dataclass(frozen=True)
class Operator:
    """A callable that a plan may use.

    Attributes
    ----------
    name : str
        As in plans: ``aten.add.Tensor``, ``operator.mul``.
    function : callable
        What it runs.
    schema : torch.FunctionSchema or None
        Of an operator of PyTorch; None for a function of numbers and for ``operator.getitem``.
    parameters : tuple of Parameter
        Of an operator of PyTorch.
    """

    name: str
    function: Callable[..., Any]
    schema: Any = None
    parameters: tuple[Parameter, ...] = ()

    @property
    def is_assertion(self) -> bool:
        """Whether it has no result and is there to raise."""
        return self.schema is not None and not self.schema.returns

    @property
    def takes_item(self) -> bool:
        """Whether it picks one result of an operator that has several."""
        return self.name == _ITEM

    @property
    def gives_tensors(self) -> bool:
        """Whether its result is a tensor or several, rather than a number."""
        if self.takes_item:
            return True
        return self.schema is not None and any("Tensor" in str(value.type) for value in self.schema.returns)

    def has_argument(self, name: str) -> bool:
        """Whether its schema has an argument of that name."""
        return self.schema is not None and any(argument.name == name for argument in self.schema.arguments)

    @property
    def is_comparison(self) -> bool:
        """Whether it compares a tensor with a number."""
        return self.name in _COMPARISONS

    def reads_numbers(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Return whether an argument is a reference where no tensor is expected."""
        if self.schema is None:
            return False
        given = [*zip(self.parameters, args, strict=False)]
        given += [
            (parameter, kwargs[parameter.name]) for parameter in self.parameters if parameter.name in kwargs
        ]
        return any(
            parameter.type != "Tensor" and next(references(argument), None) is not None
            for parameter, argument in given
        )

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check the arguments of a call; those that are references are checked again when they have values.

        Raises
        ------
        TypeError, ValueError
            They are not what the operator is declared to take, or a number is out of range.
        """
        if self.schema is not None:
            check_arguments(self.parameters, args, kwargs)
        elif kwargs or not 1 <= len(args) <= _MOST_NUMBERS:
            raise TypeError(f"it takes one to {_MOST_NUMBERS} arguments, and none by keyword")
        elif self.takes_item:
            if len(args) != 2 or isinstance(args[1], Reference) or type(args[1]) is not int:
                raise TypeError("it takes a layer with several results, and the number of one")
        elif not all(isinstance(value, (Reference, bool, int, float)) for value in args):
            raise TypeError("it takes numbers")


_resolved: dict[str, Operator] = {}


def operator_name(target: object) -> str | None:
    """Return the name in plans of the function that a node of an exported graph calls.

    None for a function that no plan may call.
    """
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return _NAMES.get(target) if callable(target) else None


def resolve(name: str) -> Operator:
    """Return the operator of this name.

    Raises
    ------
    PlanError
        There is no such operator in this PyTorch, or plans may not use it.
    """
    known = _resolved.get(name)
    if known is None:
        known = _resolved[name] = _find(name)
    return known


def _find(name: str) -> Operator:
    if name == _ITEM:
        return Operator(name, _item)
    if name in NUMBER_FUNCTIONS:
        return Operator(name, _on_numbers(SAFE_NUMBER_FUNCTIONS.get(name, NUMBER_FUNCTIONS[name])))
    if name not in ALLOWED_OPERATORS:
        raise PlanError(
            f"a plan may not use the operator {name!r}: it is none of the {len(ALLOWED_OPERATORS)} that "
            "networks are known to need. Express the network by others, or ask for it to be added"
        )
    _, packet, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise PlanError(f"PyTorch {torch.__version__} has no operator {name!r}")
    schema = found._schema
    return Operator(name, _STAND_INS.get(name, found), schema, parameters_of(schema))


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Restrict a function to numbers and its result to 64 bits, so that no chain of layers takes for ever."""

    def checked(*arguments: float) -> Any:
        for argument in arguments:
            if not isinstance(argument, (bool, int, float)):
                raise TypeError(f"a number is needed, not {type(argument).__name__}")
        result = function(*arguments)
        if isinstance(result, int) and not -_LARGEST_INTEGER <= result < _LARGEST_INTEGER:
            raise OverflowError("the result does not fit into 64 bits")
        return result

    return checked


def _item(results: Any, index: int) -> Any:
    if not isinstance(results, (list, tuple)) or not isinstance(index, int):
        raise TypeError("operator.getitem picks one result of an operator that has several")
    return results[index]
