"""The arguments of a layer: constants, references to values, and places; and their form in JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt.errors import PlanError
from trt_rt.reference.dtypes import DTYPES_BY_NAME
from trt_rt.reference.fields import Fields

__all__ = [
    "PLACE_OF_ENGINE",
    "PLACE_OF_HOST",
    "PLACE_OF_OPERANDS",
    "Argument",
    "Place",
    "Reference",
    "decode_argument",
    "encode_argument",
    "references",
]

_DEEPEST_ARGUMENT = 4

_LAYOUTS = {"strided": torch.strided}
_MEMORY_FORMATS = {
    "contiguous_format": torch.contiguous_format,
    "preserve_format": torch.preserve_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}


@dataclass(frozen=True)
class Reference:
    """An argument that is a value of the graph."""

    index: int


@dataclass(frozen=True)
class Place:
    """An argument that is a device, named by its role.

    ``engine``: the device that runs the engine. ``host``: the CPU, though the engine runs elsewhere.
    ``operands``: where the operator's other tensors are. A network exported on the CPU has only this
    place, because the engine's device and the host are both the CPU there.
    """

    name: str


PLACE_OF_ENGINE = Place("engine")
PLACE_OF_HOST = Place("host")
PLACE_OF_OPERANDS = Place("operands")
_PLACES = {place.name: place for place in (PLACE_OF_ENGINE, PLACE_OF_HOST, PLACE_OF_OPERANDS)}

Argument = Any
"""None, bool, int, float, complex, str, torch.dtype, torch.layout, torch.memory_format, Reference, Place, or
a list of these."""


def references(argument: Argument) -> Iterator[int]:
    """Yield the numbers of the values that an argument refers to."""
    if isinstance(argument, Reference):
        yield argument.index
    elif isinstance(argument, (list, tuple)):
        for element in argument:
            yield from references(element)


def encode_argument(argument: Argument) -> Any:
    """Return an argument as JSON; a type that JSON lacks becomes an object whose one key is its kind.

    Raises
    ------
    TypeError
        A plan cannot hold such an argument.
    """
    if argument is None or isinstance(argument, (bool, int, str)):
        return argument
    if isinstance(argument, float):
        return argument if math.isfinite(argument) else {"float": str(argument)}
    if isinstance(argument, complex):
        return {"complex": [str(argument.real), str(argument.imag)]}
    if isinstance(argument, (list, tuple)):
        return [encode_argument(element) for element in argument]
    if isinstance(argument, Reference):
        return {"value": argument.index}
    if isinstance(argument, Place):
        return {"device": argument.name}
    if isinstance(argument, torch.dtype) and dtype_name(argument) in DTYPES_BY_NAME:
        return {"dtype": dtype_name(argument)}
    for kind, known in (("layout", _LAYOUTS), ("memory_format", _MEMORY_FORMATS)):
        for name, value in known.items():
            if argument is value:
                return {kind: name}
    raise TypeError(f"a plan cannot hold an argument of type {type(argument).__name__} ({argument!r})")


def decode_argument(json: object, known: int, depth: int = 0) -> Argument:
    """Read and check an argument of a layer.

    Parameters
    ----------
    json : object
        As :func:`encode_argument` returns it.
    known : int
        Number of values that exist before the layer runs.
    depth : int
        Number of lists around the argument.

    Raises
    ------
    PlanError
        `json` is not an argument, or refers to a value that does not exist yet.
    """
    if json is None or isinstance(json, (bool, int, float, str)):
        return json
    if isinstance(json, list) and depth < _DEEPEST_ARGUMENT:
        return [decode_argument(element, known, depth + 1) for element in json]
    if isinstance(json, dict) and len(json) == 1:
        ((kind, value),) = json.items()
        if kind == "value":
            return Reference(Fields.check_integer(value, "a value", 0, known - 1))
        if kind == "complex" and isinstance(value, list) and len(value) == 2:
            return complex(_decode_float(value[0]), _decode_float(value[1]))
        if kind == "float":
            return _decode_float(value)
        named: dict[str, dict[str, Any]] = {
            "device": _PLACES,
            "dtype": DTYPES_BY_NAME,
            "layout": _LAYOUTS,
            "memory_format": _MEMORY_FORMATS,
        }
        if isinstance(value, str) and value in named.get(kind, {}):
            return named[kind][value]
    raise PlanError(f"the graph has an argument of an unknown kind: {str(json)[:80]}")


def _decode_float(text: object) -> float:
    try:
        return float(text) if isinstance(text, str) and len(text) < 32 else math.nan
    except ValueError as error:
        raise PlanError(f"the graph has a malformed number: {text!r}") from error
