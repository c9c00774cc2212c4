"""Checks the arguments that a file's program passes to operators of PyTorch.

PyTorch takes more than an operator is declared to take, and kernels rely on the declaration. So these are the
checks of the reference backend's plans. Values that a program computes are checked when it runs
(``guarded_functions.py``).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import (
    _SERIALIZE_TO_TORCH_DTYPE,
    _SERIALIZE_TO_TORCH_LAYOUT,
    _SERIALIZE_TO_TORCH_MEMORY_FORMAT,
)

from trt_rt.reference.arguments import Reference
from trt_rt.reference.parameters import Parameter, check_arguments, parameters_of

__all__ = ["check_call"]

_COMPARING = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_async.default",
        "_assert_async.msg",
        "_assert_scalar.default",
        "_assert_tensor_metadata.default",
    )
)
"""Operators that only compare: their messages are long, and their numbers are of any size."""

_ENUMS: dict[str, Mapping[int, Any]] = {
    "as_layout": _SERIALIZE_TO_TORCH_LAYOUT,
    "as_memory_format": _SERIALIZE_TO_TORCH_MEMORY_FORMAT,
    "as_scalar_type": _SERIALIZE_TO_TORCH_DTYPE,
}
"""What the numbers of PyTorch's enumerations stand for."""

_NUMBERS = frozenset({"int", "float", "number", "bool"})
_VALUE = Reference(0)


def check_call(node: schema.Node) -> None:
    """Check the arguments and the kinds of results of a call of a PyTorch operator.

    Raises
    ------
    TypeError, ValueError
        An argument is not what the operator is declared to take, or a number is out of range.
    """
    found = _declaration(node.target)
    if found is None:
        return  # PyTorch's deserializer says that there is no such operator
    parameters, gives_numbers = found
    if not gives_numbers and any(output.type.startswith("as_sym_") for output in node.outputs):
        raise TypeError("its result is no number")
    given = [argument.name for argument in node.inputs]
    if len(set(given)) != len(given):
        raise TypeError("an argument is given twice")
    # Arguments without a gap before them are what PyTorch's deserializer passes by position.
    positional = [
        argument.name for argument in node.inputs if argument.kind == schema.ArgumentKind.POSITIONAL
    ]
    if positional != [parameter.name for parameter in parameters[: len(positional)]]:
        raise TypeError("the arguments that are passed by position are not the first ones, in their order")
    if node.target not in _COMPARING:
        check_arguments(parameters, (), {argument.name: _value(argument.arg) for argument in node.inputs})


@functools.cache
def _declaration(target: str) -> tuple[tuple[Parameter, ...], bool] | None:
    """Return the parameters of an operator, and whether its results are numbers."""
    try:
        found = operator.attrgetter(target.removeprefix("torch.ops."))(torch.ops)
    except AttributeError:
        return None
    returns = found._schema.returns
    return parameters_of(found._schema), all(str(value.real_type) in _NUMBERS for value in returns)


def _value(argument: Any) -> Any:
    """Return what an argument is when the program runs; a reference for what is computed."""
    if isinstance(argument, list):
        return [_value(element) for element in argument]
    if isinstance(argument, schema.Device):
        return torch.device(argument.type)
    if isinstance(argument, schema.ComplexValue):
        return complex(argument.real, argument.imag)
    if hasattr(argument, "_type"):
        kind = str(argument.type)  # PyTorch's own type of string refuses to be compared with other kinds
        if kind == "as_none":
            return None
        if kind == "as_layout" and argument.value != schema.Layout.Strided:
            raise ValueError("only the strided layout is allowed")
        if kind in _ENUMS:
            return _of_enum(kind, argument.value)
        return _VALUE if kind == "as_name" else _value(argument.value)
    return _VALUE if hasattr(argument, "name") else argument


def _of_enum(kind: str, value: int) -> Any:
    if value not in _ENUMS[kind]:
        raise ValueError(f"{kind.removeprefix('as_')} {value} is none of PyTorch's")
    return _ENUMS[kind][value]
