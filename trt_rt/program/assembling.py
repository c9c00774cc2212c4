"""Puts engines into a program's graph in the place of the operators that they run."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from trt_rt.compiled.node_kinds import is_view
from trt_rt.compiled.partition import EnginePart, Partition, PartTensor, TorchOperator
from trt_rt.compiler.onnx_model import last_line_of_user
from trt_rt.program.part import Part
from trt_rt.program.truncation import CASTS_FOR_TRUNCATION

__all__ = ["describe_partition", "in_order_of_execution", "program_with_engines"]


class _Schedule:
    """The order in which parts and operators run: the model's, as far as what needs what allows.

    Operators that write into tensors run last, in the model's order: what comes before them in the graph may
    read the old values.
    """

    def __init__(self, program: GraphModule, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        position = {node: index for index, node in enumerate(nodes)}
        self.owner: dict[Node, Any] = {node: node for node in nodes}
        rank: dict[Any, int] = dict(position)
        for name, part in parts.items():
            self.owner.update(dict.fromkeys(part.nodes, name))
            rank[name] = max(position[node] for node in part.nodes)
        items = list(dict.fromkeys(self.owner[node] for node in nodes))
        needs: dict[Any, set[Any]] = {item: set() for item in items}
        for node in nodes:
            needs[self.owner[node]].update(
                self.owner[source] for source in node.all_input_nodes if source in self.owner
            )
        for name, part in parts.items():
            needs[name].update(self.owner[source] for source in part.inputs if source in self.owner)
            needs[name].discard(name)
        writers = [node for node in nodes if self.owner[node] is node and _writes(node)]
        for number, writer in enumerate(writers):
            earlier = [item for item in items if rank[item] < position[writer] and item not in writers]
            needs[writer].update(earlier, writers[:number])
        self.needs = needs
        self.items = _sorted(items, needs, rank)


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _sorted(items: Sequence[Any], needs: Mapping[Any, set[Any]], rank: Mapping[Any, int]) -> list[Any]:
    waiting = {item: len(needs[item]) for item in items}
    users: dict[Any, list[Any]] = {item: [] for item in items}
    for item in items:
        for needed in needs[item]:
            users[needed].append(item)
    ready = [(rank[item], number, item) for number, item in enumerate(items) if not waiting[item]]
    numbers = {item: number for number, item in enumerate(items)}
    heapq.heapify(ready)
    result = []
    while ready:
        _, _, item = heapq.heappop(ready)
        result.append(item)
        for user in users[item]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (rank[user], numbers[user], user))
    assert len(result) == len(items), "parts and operators need each other"
    return result


def in_order_of_execution(program: GraphModule, parts: Sequence[Part]) -> list[int]:
    """Return the positions of parts in the order in which they run."""
    schedule = _Schedule(program, {str(position): part for position, part in enumerate(parts)})
    return [int(item) for item in schedule.items if isinstance(item, str)]


def program_with_engines(program: GraphModule, parts: Mapping[str, Part]) -> Graph:
    """Return a new graph in which each part is one call of a submodule.

    Parameters
    ----------
    program : torch.fx.GraphModule
        The whole program; not changed.
    parts : mapping
        By the name of the submodule that runs each.
    """
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in program.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            copies[node] = graph.node_copy(node)
    for item in _Schedule(program, parts).items:
        if not isinstance(item, str):
            copies[item] = graph.node_copy(item, copies.__getitem__)
            continue
        part = parts[item]
        call = graph.call_module(item, tuple(copies[source] for source in part.inputs))
        values = tuple(output.meta["val"] for output in part.outputs)
        if len(part.outputs) == 1:
            call.meta["val"] = values[0]
            copies[part.outputs[0]] = call
            continue
        call.meta["val"] = values
        for index, output in enumerate(part.outputs):
            copies[output] = graph.call_function(operator.getitem, (call, index))
            copies[output].meta["val"] = values[index]
    graph.output(torch.fx.map_arg(program.graph.output_node().args[0], copies.__getitem__))
    graph.lint()
    return graph


def describe_partition(
    program: GraphModule, parts: Mapping[str, Part], reasons: Mapping[str, str], backend: str
) -> Partition:
    """Return the partition of a program for people and tests to read.

    Parameters
    ----------
    program : torch.fx.GraphModule
        The whole program.
    parts : mapping
        By the name of the submodule that runs each.
    reasons : mapping
        Why operators are in no part, by name of the node; others are not worth a word (sizes, tuples).
    backend : str
        That builds the engines.
    """
    schedule = _Schedule(program, parts)
    after_engines = _reached(schedule, parts, forwards=True)
    before_engines = _reached(schedule, parts, forwards=False)
    steps: list[EnginePart | TorchOperator] = []
    for item in schedule.items:
        if isinstance(item, str):
            part = parts[item]
            operators = tuple(str(node.target) for node in part.nodes if node.target is not operator.getitem)
            steps.append(
                EnginePart(
                    item, operators, tuple(map(_tensor, part.inputs)), tuple(map(_tensor, part.outputs))
                )
            )
        elif reasons.get(item.name) and item.target is not operator.getitem:
            is_glue = (
                is_view(item)
                or item.target is torch.ops.aten.copy_.default
                or CASTS_FOR_TRUNCATION in item.meta
            )
            splits = item in after_engines and item in before_engines and not is_glue
            source = last_line_of_user(item.meta.get("stack_trace") or "") or ""
            steps.append(
                TorchOperator(item.name, str(item.target), reasons[item.name], source, splits, is_glue)
            )
    return Partition(backend, tuple(steps))


def _reached(schedule: _Schedule, parts: Mapping[str, Part], *, forwards: bool) -> set[Any]:
    """The items that need an engine's results, or that an engine needs."""
    found: set[Any] = set()
    for item in schedule.items if forwards else reversed(schedule.items):
        if forwards:
            if any(needed in parts or needed in found for needed in _data_needs(schedule, item)):
                found.add(item)
        elif item in parts or item in found:
            found.update(_data_needs(schedule, item))
    return found


def _data_needs(schedule: _Schedule, item: Any) -> set[Any]:
    return (
        schedule.needs[item]
        if isinstance(item, str)
        else {schedule.owner[source] for source in item.all_input_nodes if source in schedule.owner}
    )


def _tensor(node: Node) -> PartTensor:
    value = node.meta["val"]
    return PartTensor(
        node.name, value.dtype, tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    )
