"""The parameters of an operator, and which arguments a plan may pass for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.reference.arguments import Place, Reference
from trt_rt.reference.number_limits import LONGEST_LIST, LONGEST_TEXT, check_float, check_integer

__all__ = ["Parameter", "check_arguments", "parameters_of"]

_INT64 = 2**63


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operator.

    Attributes
    ----------
    name : str
        Its name.
    type : str
        The type of the argument, or of the elements where it is a list: ``Tensor``, ``int``, ``float``,
        ``number``, ``bool``, ``str``, ``ScalarType``, ``Layout``, ``MemoryFormat``, ``Device``.
    is_list : bool
        Whether the argument is a list.
    is_optional, has_optional_elements : bool
        Whether the argument, or an element of the list, may be None.
    is_keyword : bool
        Whether the argument must be passed by keyword.
    is_required : bool
        Whether the argument must be passed.
    """

    name: str
    type: str
    is_list: bool
    is_optional: bool
    has_optional_elements: bool
    is_keyword: bool
    is_required: bool


def parameters_of(schema: torch.FunctionSchema) -> tuple[Parameter, ...]:
    """Return the parameters of an operator of PyTorch."""
    parameters = []
    for argument in schema.arguments:
        # In `real_type` a dtype is a ScalarType; in `type` it is an integer.
        text = str(argument.real_type)
        is_optional, text = _unwrap(text, "Optional")
        is_list, text = _unwrap(text, "List")
        has_optional_elements, text = _unwrap(text, "Optional")
        parameters.append(
            Parameter(
                name=argument.name,
                type=text,
                is_list=is_list,
                is_optional=is_optional,
                has_optional_elements=has_optional_elements,
                is_keyword=argument.kwarg_only,
                is_required=not argument.has_default_value(),
            )
        )
    return tuple(parameters)


def check_arguments(
    parameters: Sequence[Parameter],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Check the arguments of a call.

    PyTorch takes more than an operator is declared to take: integers for dtypes and layouts, tensors for
    integers. Kernels rely on the declaration, so this checks it.

    Parameters
    ----------
    parameters : sequence of Parameter
        Of the operator.
    args, kwargs
        The arguments. A reference passes for any type that a layer can compute.

    Raises
    ------
    TypeError
        There are too many arguments, one is missing or given twice, or has another type.
    ValueError
        A number, a list or a string is out of range.
    """
    positional = [parameter for parameter in parameters if not parameter.is_keyword]
    if len(args) > len(positional):
        raise TypeError(f"{len(args)} arguments are given, and it takes {len(positional)}")
    named = {parameter.name: parameter for parameter in parameters}
    given = {parameter.name for parameter, _ in zip(positional, args, strict=False)}
    for name in kwargs:
        if name not in named or name in given:
            raise TypeError(f"there is no argument {name!r}, or it is given twice")
    given.update(kwargs)
    missing = [parameter.name for parameter in parameters if parameter.is_required]
    missing = [name for name in missing if name not in given]
    if missing:
        raise TypeError(f"the arguments {missing} are missing")
    for parameter, value in zip(positional, args, strict=False):
        _check(parameter, value)
    for name, value in kwargs.items():
        _check(named[name], value)


def _check(parameter: Parameter, value: Any) -> None:
    if value is None:
        if not parameter.is_optional:
            raise TypeError(f"argument {parameter.name!r} must not be None")
        return
    # PyTorch takes one integer for a list of as many as an image has dimensions.
    if not parameter.is_list or (not isinstance(value, (list, tuple)) and parameter.type in ("int", "float")):
        _check_one(parameter, value)
        return
    if isinstance(value, Reference):
        _check_one(parameter, value)
        return
    if not isinstance(value, (list, tuple)):
        raise _misfit(parameter, value)
    if len(value) > LONGEST_LIST:
        raise ValueError(f"argument {parameter.name!r} has {len(value)} elements, more than {LONGEST_LIST}")
    for element in value:
        if element is None and parameter.has_optional_elements:
            continue
        _check_one(parameter, element)


def _check_one(parameter: Parameter, value: Any) -> None:
    if isinstance(value, Reference):
        if parameter.type not in _VALUES:
            raise _misfit(parameter, value)
        return
    accepts = _TYPES.get(parameter.type)
    if accepts is None or not accepts(value):
        raise _misfit(parameter, value)
    kind = type(value)
    if kind is int:
        if parameter.type == "int":
            check_integer(parameter.name, value)
        elif not -_INT64 <= value < _INT64:
            raise ValueError(f"argument {parameter.name!r} is {value}, which does not fit into 64 bits")
    elif kind is str and len(value) > LONGEST_TEXT:
        raise ValueError(f"argument {parameter.name!r} has {len(value)} characters, more than {LONGEST_TEXT}")
    if parameter.type == "float":
        check_float(parameter.name, value)


def _misfit(parameter: Parameter, value: Any) -> TypeError:
    expected = _WORDS.get(parameter.type, parameter.type)
    return TypeError(f"argument {parameter.name!r} must be {expected}, not {type(value).__name__}")


def _is_number(value: object) -> bool:
    return type(value) in (bool, int, float, complex)


_VALUES = frozenset({"Tensor", "int", "float", "number", "bool"})
"""Types of arguments that a layer can compute."""

_TYPES: dict[str, Callable[[object], bool]] = {
    # PyTorch makes a tensor without dimensions of a number.
    "Tensor": lambda value: isinstance(value, torch.Tensor) or _is_number(value),
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "number": _is_number,
    "bool": lambda value: type(value) is bool,
    "str": lambda value: type(value) is str,
    "ScalarType": lambda value: isinstance(value, torch.dtype),
    "Layout": lambda value: isinstance(value, torch.layout),
    "MemoryFormat": lambda value: isinstance(value, torch.memory_format),
    "Device": lambda value: isinstance(value, (torch.device, Place)),
}

_WORDS = {
    "Tensor": "a tensor",
    "int": "an integer",
    "float": "a floating-point number",
    "number": "a number",
    "bool": "a boolean",
    "str": "a string",
    "ScalarType": "a dtype",
    "Layout": "a layout",
    "MemoryFormat": "a memory format",
    "Device": "a device",
    "Generator": "None (a plan has no random number generators)",
}


def _unwrap(text: str, wrapper: str) -> tuple[bool, str]:
    if text.startswith(f"{wrapper}["):
        return True, text[len(wrapper) + 1 : -1]
    return False, text
