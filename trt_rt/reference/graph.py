"""The network of a plan: its layers in the order in which they run.

Values are numbered: first the network's inputs, then its weights, then one value for each layer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from trt_rt.errors import PlanError
from trt_rt.reference.arguments import (
    Argument,
    Place,
    decode_argument,
    encode_argument,
    references,
)
from trt_rt.reference.fields import Fields
from trt_rt.reference.operators import Operator, resolve
from trt_rt.reference.results import Result, decode_result, encode_result

__all__ = ["Graph", "Node", "decode_graph", "encode_graph"]


@dataclass(frozen=True)
class Node:
    """A layer: one call of an operator.

    Attributes
    ----------
    name : str
        The layer's name.
    operator : Operator
        What it calls.
    args, kwargs
        Its arguments.
    result : Result or None
        What the plan declares its result to be; None for a number, for nothing, and for several results.
    data_dependent : bool
        Whether the shape of its result, or a number that it returns, depends on values in memory.
    """

    name: str
    operator: Operator
    args: tuple[Argument, ...]
    kwargs: dict[str, Argument]
    result: Result | None = None
    data_dependent: bool = False

    @property
    def references(self) -> tuple[int, ...]:
        """The values that it reads, each once, in the order of its arguments."""
        return tuple(dict.fromkeys(references([*self.args, *self.kwargs.values()])))

    @functools.cached_property
    def reads_numbers(self) -> bool:
        """Whether it may read a number that another layer computes."""
        return self.operator.reads_numbers(self.args, self.kwargs)

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
        The layers, in an order in which they can run.
    outputs : tuple of int
        The values that are the network's outputs, in their order.
    """

    leaves: int
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


def encode_graph(graph: Graph) -> dict[str, Any]:
    """Return a graph as JSON."""
    return {
        "nodes": [
            {
                "name": node.name,
                "operator": node.operator.name,
                "args": [encode_argument(argument) for argument in node.args],
                "kwargs": {name: encode_argument(argument) for name, argument in node.kwargs.items()},
                "result": encode_result(node.result),
                "data_dependent": node.data_dependent,
            }
            for node in graph.nodes
        ],
        "outputs": list(graph.outputs),
    }


def decode_graph(json: object, leaves: int) -> Graph:
    """Read and check a graph.

    Parameters
    ----------
    json : object
        As :func:`encode_graph` returns it.
    leaves : int
        Number of inputs and weights.

    Raises
    ------
    PlanError
        `json` is not a graph, a layer reads a value that does not exist yet, or calls an operator that plans
        may not call, or in a way in which they may not.
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
    args = tuple(decode_argument(argument, known) for argument in fields.items("args"))
    kwargs = {
        keyword: decode_argument(argument, known) for keyword, argument in fields.mapping("kwargs").items()
    }
    result = decode_result(fields.value("result"))
    data_dependent = fields.flag("data_dependent")
    fields.finish()
    try:
        found.check_arguments(args, kwargs)
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"layer {name!r} calls {found.name} in a way that it does not allow: {error}"
        ) from error
    return Node(name, found, args, kwargs, result, data_dependent)
