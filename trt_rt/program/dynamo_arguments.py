"""What Dynamo passes to a graph with each call: tensors, numbers, sizes, and what belongs to modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from trt_rt.compiled.size_bounds import expression
from trt_rt.errors import CompileError

__all__ = ["GraphArgument", "graph_arguments", "number"]


@dataclass(frozen=True)
class GraphArgument:
    """What Dynamo passes for one placeholder of a graph.

    Attributes
    ----------
    name : str
        What it is in the user's program, as Dynamo writes it.
    value : object
        The tensor of a module, or a number; None for a tensor that the caller gives, and for a size.
    example : object
        The value that Dynamo traced the graph with.
    is_constant : bool
        Whether it is a tensor of a module that the program has as a constant.
    is_number : bool
        Whether it is a number that the program has as a constant.
    """

    name: str
    value: Any
    example: Any
    is_constant: bool = False
    is_number: bool = False


def graph_arguments(graph: GraphModule, inputs: Sequence[Any]) -> list[GraphArgument]:
    """Return what Dynamo passes for each placeholder of a graph, in their order.

    Raises
    ------
    CompileError
        An argument may change and is neither a tensor nor a number.
    """
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    examples = [
        node.meta.get("example_value", value) for node, value in zip(placeholders, inputs, strict=True)
    ]
    sizes = {
        expression(size)
        for example in examples
        if isinstance(example, torch.Tensor)
        for size in example.shape
        if not isinstance(size, int)
    }
    found = []
    for node, example in zip(placeholders, examples, strict=True):
        given = node.meta["grapharg"]
        name = given.source.name if given.source is not None else node.name
        value = given.example
        if isinstance(value, torch.Tensor) and given.is_tensor:
            # A tensor whose size has changed is not the one that the module had before.
            is_constant = _belongs_to_a_module(given) and all(isinstance(size, int) for size in example.shape)
            found.append(GraphArgument(name, value if is_constant else None, example, is_constant))
        elif isinstance(example, torch.SymInt) and (not node.users or expression(example) in sizes):
            found.append(GraphArgument(name, None, example))
        elif isinstance(value, (int, float, torch.SymInt, torch.SymFloat, torch.Tensor)):
            found.append(GraphArgument(name, number(value), example, is_number=True))
        else:
            raise CompileError(
                f"the argument {name} of the graph is a {type(value).__name__} that may change: make it a "
                "tensor, or a constant"
            )
    return found


def number(given: Any) -> Any:
    """Return a number that Dynamo passes as it is, as a symbol, or as a tensor."""
    if isinstance(given, (torch.SymInt, torch.SymFloat)):
        return given.node.hint
    return given.item() if isinstance(given, torch.Tensor) else given


def _belongs_to_a_module(argument: Any) -> bool:
    source = argument.source
    return source is not None and source.guard_source.is_unspecialized_nn_module()
