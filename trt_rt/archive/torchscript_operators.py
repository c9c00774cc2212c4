"""Which operator of PyTorch a call in TorchScript means.

TorchScript's code names operators without their overloads, and writes dtypes, layouts and memory formats as
numbers. The arguments decide, as they do when PyTorch reads the code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from trt_rt.archive.program_checks import ATEN_OPERATORS

__all__ = ["Call", "find_operator", "is_tensor"]

_DTYPES = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    8: torch.complex32,
    9: torch.complex64,
    10: torch.complex128,
    11: torch.bool,
    15: torch.bfloat16,
    23: torch.float8_e5m2,
    24: torch.float8_e4m3fn,
}
_LAYOUTS = {0: torch.strided}
_MEMORY_FORMATS = {
    0: torch.contiguous_format,
    1: torch.preserve_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
}
_NUMBERED: Mapping[str, Mapping[int, Any]] = {
    "Layout": _LAYOUTS,
    "MemoryFormat": _MEMORY_FORMATS,
    "ScalarType": _DTYPES,
}


@dataclass(frozen=True)
class Call:
    """A call of an operator of PyTorch.

    Attributes
    ----------
    operator : torch._ops.OpOverload
        On the list of operators that files may call.
    args : tuple
        By position.
    kwargs : dict
        By name.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def is_tensor(value: Any) -> bool:
    """Return whether a value of the graph is a tensor."""
    return isinstance(value, Node) and isinstance(value.meta["val"], torch.Tensor)


def find_operator(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call | None:
    """Return the first overload on the list that takes these arguments; None if there is none.

    Parameters
    ----------
    name : str
        Of an operator of the namespace aten, without an overload.
    args, kwargs : sequence, mapping
        Nodes, numbers, strings, devices, None, and lists of these.
    """
    if name == "to" and len(args) > 1 and isinstance(args[1], torch.device) and None in args[2:3]:
        # TorchScript's own overload, without a dtype.
        args, kwargs = args[:1], {"device": args[1], "non_blocking": False, "copy": False, **kwargs}
    overloads = sorted(
        (each.rpartition(".")[2] for each in ATEN_OPERATORS if each.startswith(f"torch.ops.aten.{name}.")),
        # An overload for tensors takes numbers, too, where PyTorch has none for numbers.
        key=lambda overload: (overload != "Tensor", overload),
    )
    packet = getattr(torch.ops.aten, name) if overloads else None
    for overload in overloads:
        operator = getattr(packet, overload)
        call = _matched(operator, list(args), dict(kwargs))
        if call is not None:
            return call
    return None


class _NoMatchError(Exception):
    """An argument is not one that an overload takes."""


def _matched(operator: Any, args: list[Any], kwargs: dict[str, Any]) -> Call | None:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    try:
        for parameter in operator._schema.arguments:
            kind = str(parameter.real_type)
            if parameter.name in kwargs:
                named[parameter.name] = _converted(kwargs.pop(parameter.name), kind)
            elif args and not parameter.kwarg_only:
                positional.append(_converted(args.pop(0), kind))
            elif not parameter.has_default_value():
                return None
    except _NoMatchError:
        return None
    return None if args or kwargs else Call(operator, tuple(positional), named)


def _converted(value: Any, kind: str) -> Any:
    """A value as an argument of a kind.

    Raises
    ------
    _NoMatchError
        It is of another kind.
    """
    if kind.startswith("Optional["):
        return None if value is None else _converted(value, kind[len("Optional[") : -1])
    if kind.startswith("List["):
        if type(value) not in (list, tuple):
            raise _NoMatchError
        return [_converted(item, kind[len("List[") : -1]) for item in value]
    if kind in _NUMBERED:
        if type(value) is int and value in _NUMBERED[kind]:
            return _NUMBERED[kind][value]
        raise _NoMatchError
    if not _FITS.get(kind, _never)(value):
        raise _NoMatchError
    return value


def _is(value: Any, *kinds: type[Any]) -> bool:
    found = value.meta["val"] if isinstance(value, Node) else value
    return isinstance(found, kinds) and (type(found) is not bool or bool in kinds)


def _never(value: Any) -> bool:
    return False


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "Device": lambda value: isinstance(value, torch.device),
    "SymInt": lambda value: _is(value, int, torch.SymInt),
    "Tensor": is_tensor,
    "bool": lambda value: _is(value, bool, torch.SymBool),
    "float": lambda value: _is(value, float, int, torch.SymFloat, torch.SymInt),
    "int": lambda value: _is(value, int, torch.SymInt),
    "number": lambda value: _is(value, bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool),
    "str": lambda value: isinstance(value, str),
}
