"""The network of a plan: nodes in the order in which they run, and their arguments as JSON.

Values are numbered: first the network's inputs, then its weights, then one value for each node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.errors import PlanError
from trt_rt.reference.dtypes import DTYPES_BY_NAME, dtype_name
from trt_rt.reference.fields import Fields
from trt_rt.reference.operators import Operator, resolve

__all__ = [
    "PLACE_OF_ENGINE",
    "PLACE_OF_HOST",
    "PLACE_OF_OPERANDS",
    "Argument",
    "Graph",
    "Node",
    "Place",
    "Reference",
    "decode_graph",
    "encode_argument",
    "encode_graph",
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
    """An argument that is a device, by the part that it plays.

    ``engine``: the device that runs the engine. ``host``: the CPU, though the engine runs elsewhere.
    ``operands``: where the operator's other tensors are; for a network that was exported on the CPU, where
    the two cannot be told apart.
    """

    name: str


PLACE_OF_ENGINE = Place("engine")
PLACE_OF_HOST = Place("host")
PLACE_OF_OPERANDS = Place("operands")
_PLACES = {place.name: place for place in (PLACE_OF_ENGINE, PLACE_OF_HOST, PLACE_OF_OPERANDS)}

Argument = Any
"""None, bool, int, float, complex, str, torch.dtype, torch.layout, torch.memory_format, Reference, Place, or
a list of these."""


@dataclass(frozen=True)
class Node:
    """One call of an operator.

    Attributes
    ----------
    name : str
        The layer's name.
    operator : Operator
        What it calls.
    args, kwargs
        Its arguments.
    data_dependent : bool
        Whether the shape of its result, or a number that it returns, depends on values in memory.
    """

    name: str
    operator: Operator
    args: tuple[Argument, ...]
    kwargs: dict[str, Argument]
    data_dependent: bool = False

    @property
    def references(self) -> tuple[int, ...]:
        """The values that it reads, each once, in the order of its arguments."""
        return tuple(dict.fromkeys(references([*self.args, *self.kwargs.values()])))

    @property
    def place(self) -> Place | None:
        """The device that it names, if it names one."""
        found = [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Place)]
        return found[0] if found else None


@dataclass(frozen=True)
class Graph:
    """A network.

    Attributes
    ----------
    leaves : int
        Number of values that are given: inputs, then weights.
    nodes : tuple of Node
        In an order in which they can run.
    outputs : tuple of int
        The values that are the network's outputs, in their order.
    """

    leaves: int
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


def references(argument: Argument) -> Iterator[int]:
    """Yield the values that an argument refers to."""
    if isinstance(argument, Reference):
        yield argument.index
    elif isinstance(argument, (list, tuple)):
        for element in argument:
            yield from references(element)


def encode_argument(argument: Argument, place_of: Callable[[torch.device], Place] | None = None) -> Any:
    """Return an argument as JSON; what JSON has no type for becomes an object with one key, its kind.

    Parameters
    ----------
    argument : Argument
        The argument.
    place_of : callable, optional
        Gives the part that a device plays.

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
        return [encode_argument(element, place_of) for element in argument]
    if isinstance(argument, Reference):
        return {"value": argument.index}
    if isinstance(argument, torch.device) and place_of is not None:
        return {"device": place_of(argument).name}
    if isinstance(argument, Place):
        return {"device": argument.name}
    if isinstance(argument, torch.dtype) and dtype_name(argument) in DTYPES_BY_NAME:
        return {"dtype": dtype_name(argument)}
    for kind, known in (("layout", _LAYOUTS), ("memory_format", _MEMORY_FORMATS)):
        for name, value in known.items():
            if argument is value:
                return {kind: name}
    raise TypeError(f"a plan cannot hold an argument of type {type(argument).__name__} ({argument!r})")


def encode_graph(graph: Graph) -> dict[str, Any]:
    """Return a graph as JSON."""
    return {
        "nodes": [
            {
                "name": node.name,
                "operator": node.operator.name,
                "args": [encode_argument(argument) for argument in node.args],
                "kwargs": {name: encode_argument(argument) for name, argument in node.kwargs.items()},
                "data_dependent": node.data_dependent,
            }
            for node in graph.nodes
        ],
        "outputs": list(graph.outputs),
    }


def decode_graph(json: object, leaves: int) -> Graph:
    """Read a graph from JSON, trusting nothing.

    Parameters
    ----------
    json : object
        As :func:`encode_graph` returns it.
    leaves : int
        Number of inputs and weights.

    Raises
    ------
    PlanError
        It is not a graph, uses a value before it is there, or calls what plans may not call.
    """
    fields = Fields(json, "the graph")
    nodes: list[Node] = []
    for item in fields.items("nodes"):
        nodes.append(_decode_node(item, known=leaves + len(nodes)))
    known = leaves + len(nodes)
    outputs = tuple(
        fields.check_integer(index, "an output", 0, known - 1) for index in fields.items("outputs")
    )
    fields.finish()
    return Graph(leaves, tuple(nodes), outputs)


def _decode_node(json: object, known: int) -> Node:
    fields = Fields(json, "a layer of the graph")
    name = fields.text("name")
    found = resolve(fields.text("operator"))
    args = tuple(_decode_argument(argument, known) for argument in fields.items("args"))
    kwargs = {
        keyword: _decode_argument(argument, known) for keyword, argument in fields.mapping("kwargs").items()
    }
    data_dependent = fields.flag("data_dependent")
    fields.finish()
    found.check_call(len(args), list(kwargs))
    return Node(name, found, args, kwargs, data_dependent)


def _decode_argument(json: object, known: int, depth: int = 0) -> Argument:
    if json is None or isinstance(json, (bool, int, float, str)):
        return json
    if isinstance(json, list) and depth < _DEEPEST_ARGUMENT:
        return [_decode_argument(element, known, depth + 1) for element in json]
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
    raise PlanError(f"the graph has an argument that means nothing: {str(json)[:80]}")


def _decode_float(text: object) -> float:
    try:
        return float(text) if isinstance(text, str) and len(text) < 32 else math.nan
    except ValueError as error:
        raise PlanError(f"the graph has a number that is none: {text!r}") from error
