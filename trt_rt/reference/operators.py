"""What a plan may call: PyTorch's functional operators, and arithmetic on sizes.

A plan names operators, and only names found here are ever resolved, so that a plan cannot reach any other
function. Running a network from an untrusted plan still runs PyTorch's kernels on what it says, as running
an untrusted TensorRT plan runs TensorRT's.
"""

from __future__ import annotations

import importlib
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.errors import PlanError

__all__ = ["Operator", "operator_name", "resolve"]

_ATEN_NAME = re.compile(r"(aten|prims)\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)

_REFUSED = re.compile(
    # Reads files.
    r"from_file"
    # Trusts indices, offsets or packed layouts that it is given.
    r"|sparse|nested|jagged|mkldnn|fbgemm|int4pack|segment_reduce"
    # Acts on memory, or takes for granted how it is laid out, which differs between devices.
    r"|resize|record_stream|pin_memory|as_strided"
)

_SAME_FOR_ANY_STRIDES = {
    # A view needs the strides that the result before it had when the network was exported; kernels for other
    # devices, and for the meta device, return others.
    "aten.view.default": torch.ops.aten.reshape.default,
    "aten._unsafe_view.default": torch.ops.aten.reshape.default,
}

_LARGEST_INTEGER = 2**63
_LARGEST_EXPONENT = 64


def _power(base: float, exponent: float) -> Any:
    # Integers have no bound in Python: 9**9**9 would never end.
    if abs(exponent) > _LARGEST_EXPONENT:
        raise OverflowError(f"the exponent {exponent} is out of range")
    return base**exponent


_SCALAR_FUNCTIONS: dict[str, Callable[..., Any]] = {
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

_SAFE_SUBSTITUTES: dict[str, Callable[..., Any]] = {"operator.pow": _power}

_ITEM = "operator.getitem"

_NAMES: dict[Callable[..., Any], str] = {function: name for name, function in _SCALAR_FUNCTIONS.items()}
_NAMES[operator.getitem] = _ITEM


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
    """

    name: str
    function: Callable[..., Any]
    schema: Any = None

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

    def check_call(self, arguments: int, keywords: list[str]) -> None:
        """Check the number and the names of a call's arguments.

        Raises
        ------
        PlanError
            They are not the operator's.
        """
        if self.schema is None:
            fits = not keywords and 1 <= arguments <= 3
        else:
            positional = sum(not argument.kwarg_only for argument in self.schema.arguments)
            known = {argument.name for argument in self.schema.arguments}
            fits = arguments <= positional and known.issuperset(keywords)
        if not fits:
            raise PlanError(f"operator {self.name} does not take {arguments} arguments and {keywords}")


def operator_name(target: object) -> str | None:
    """Return the name in plans of what a node of an exported graph calls; None if no plan may call it."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return _NAMES.get(target) if callable(target) else None


def resolve(name: str) -> Operator:
    """Find what a plan names.

    Raises
    ------
    PlanError
        There is no such operator in this PyTorch, or plans may not use it.
    """
    if name == _ITEM:
        return Operator(name, _item)
    if name in _SCALAR_FUNCTIONS:
        return Operator(name, _on_numbers(_SAFE_SUBSTITUTES.get(name, _SCALAR_FUNCTIONS[name])))
    match = _ATEN_NAME.fullmatch(name)
    if match is None or _REFUSED.search(name):
        raise PlanError(f"a plan may not use the operator {name!r}")
    namespace, packet, overload = match.groups()
    if namespace == "prims":
        importlib.import_module("torch._prims")  # registers them
    found = getattr(getattr(getattr(torch.ops, namespace), packet, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload) or str(found) != name:
        raise PlanError(f"PyTorch {torch.__version__} has no operator {name!r}")
    schema = found._schema
    if schema.is_mutable:
        raise PlanError(f"a plan may not use the operator {name!r}: it changes its arguments")
    return Operator(name, _SAME_FOR_ANY_STRIDES.get(name, found), schema)


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Restrict a function to numbers, and its result to 64 bits: a plan cannot make it take for ever."""

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
