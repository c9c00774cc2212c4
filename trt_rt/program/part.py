"""One part of a program: operators that become one engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.utils._sympy.value_ranges import ValueRanges

from trt_rt.compiled.node_kinds import is_number
from trt_rt.compiled.size_bounds import expression
from trt_rt.compiler import Profile, export_program
from trt_rt.errors import CompileError
from trt_rt.program.part_export import exported_for_onnx
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.sizes import (
    SizeSource,
    emit_size,
    size_sources,
)

__all__ = ["ORIGIN", "Part", "RefusedError", "extract_part"]

ORIGIN = "trt_rt_origin"
"""Key in ``meta["custom"]`` of the name that a node had in the program's graph. It survives new exports."""


class RefusedError(Exception):
    """Some operators of a part cannot be in an engine after all.

    Attributes
    ----------
    reasons : dict
        Of the node's name in the program's graph to the reason.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        self.reasons = dict(reasons)


@dataclass
class Part:
    """Operators of a program's graph as a graph of their own.

    Attributes
    ----------
    nodes : list of torch.fx.Node
        Of the program's graph, in order.
    module : torch.fx.GraphModule
        The same operators. Its weights are the program's tensors.
    inputs : list of torch.fx.Node
        Nodes of the program's graph that give the arguments; all are tensors.
    outputs : list of torch.fx.Node
        Those of `nodes` whose values others need.
    """

    nodes: list[Node]
    module: GraphModule
    inputs: list[Node]
    outputs: list[Node]

    @property
    def names(self) -> frozenset[str]:
        """Names of its nodes in the program's graph."""
        return frozenset(node.name for node in self.nodes)

    def export(self, ranges: SizeRanges) -> ExportedProgram:
        """Export the part with sizes that vary as the program's do.

        Raises
        ------
        RefusedError
            It cannot be exported alone, or only for one size where the program has a range.
        """
        placeholders = self._placeholders()
        dimensions = [
            {
                axis: Dim.AUTO(**dict(zip(("min", "max"), ranges.limits(size), strict=True)))
                for axis, size in enumerate(node.meta["val"].shape)
                if ranges.varies(size)
            }
            for node in placeholders
        ]
        try:
            # One tuple for the variadic forward of a GraphModule with any number of inputs.
            exported = export_program(self.module, self._examples(ranges), dynamic_shapes=tuple(dimensions))
        except CompileError as error:
            raise RefusedError(dict.fromkeys(self.names, f"alone it cannot be exported: {error}")) from error
        _check_dimensions(exported, dimensions, self.names)
        _restore_ranges(exported, placeholders, ranges)
        return exported

    def export_for_onnx(self, ranges: SizeRanges) -> ExportedProgram | None:
        """Export the part from what the program's graph knows, with operators that have ONNX functions.

        None where only tracing tells.
        """
        return exported_for_onnx(self.module, ranges)

    def _placeholders(self) -> list[Node]:
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]

    def _examples(self, ranges: SizeRanges) -> list[torch.Tensor]:
        values = [node.meta["val"] for node in self._placeholders()]
        return [
            torch.empty(
                [ranges.example(size) for size in value.shape], dtype=value.dtype, device=value.device
            )
            for value in values
        ]

    def profiles(self, ranges: SizeRanges) -> list[Profile]:
        """Return the ranges of the part's inputs, one profile for each that the program has."""
        dynamic = [
            node
            for node in self._placeholders()
            if any(ranges.varies(size) for size in node.meta["val"].shape)
        ]
        if not dynamic:
            return []
        return [
            {node.name: ranges.shapes(node.meta["val"].shape, number) for node in dynamic}
            for number in range(ranges.number_of_profiles)
        ]


def _restore_ranges(exported: ExportedProgram, placeholders: Sequence[Node], ranges: SizeRanges) -> None:
    """Give the part the program's ranges: for sizes from 0 or 1 on, torch.export says from 2 on."""
    inputs = set(exported.graph_signature.user_inputs)
    nodes = [node for node in exported.graph.nodes if node.op == "placeholder" and node.name in inputs]
    for node, original in zip(nodes, placeholders, strict=True):
        for size, wanted in zip(node.meta["val"].shape, original.meta["val"].shape, strict=True):
            found = expression(size)
            if not isinstance(found, int) and found.is_Symbol:
                exported.range_constraints[found] = ValueRanges(*ranges.limits(wanted))


def _check_dimensions(
    exported: ExportedProgram, dimensions: Sequence[Mapping[int, Any]], names: frozenset[str]
) -> None:
    inputs = set(exported.graph_signature.user_inputs)
    nodes = [node for node in exported.graph.nodes if node.op == "placeholder" and node.name in inputs]
    for node, dynamic in zip(nodes, dimensions, strict=True):
        for axis in dynamic:
            size = node.meta["val"].shape[axis]
            if not isinstance(size, torch.SymInt):
                reason = f"dimension {axis} of its part's input {node.name!r} must be {size} for PyTorch"
                raise RefusedError(dict.fromkeys(names, reason))


def extract_part(
    program: GraphModule, nodes: Sequence[Node], mutated: frozenset[str], ranges: SizeRanges
) -> Part:
    """Copy nodes of a program's graph into a graph of their own.

    Weights are copied with their users; buffers that the program writes to are inputs. A size that an
    operator takes is read from the part's own tensor inputs; where none has it, the program's input that has
    it becomes an input of the part, too.

    Parameters
    ----------
    program : torch.fx.GraphModule
        Has the nodes.
    nodes : sequence of torch.fx.Node
        In the order of the graph.
    mutated : frozenset of str
        Buffers that the program writes to.
    ranges : SizeRanges
        Of the program.

    Raises
    ------
    RefusedError
        Operators take a size that no tensor input of the part or the program tells.
    """
    members = set(nodes)
    outside = _outside_nodes(nodes, members)
    numbers = [node for node in outside if is_number(node)]
    tensors = [node for node in outside if not is_number(node) and not _is_constant(node, mutated)]
    _add_size_carriers(tensors, numbers, program, members, ranges)

    graph = Graph()
    copies: dict[Node, Any] = {}
    for node in tensors:
        placeholder = graph.placeholder(_identifier(node.name))
        placeholder.meta = dict(node.meta)
        copies[node] = placeholder
    sources = {
        symbol: SizeSource(copies[source.tensor], source.axis, source.scale, source.offset)
        for symbol, source in size_sources(tensors).items()
    }
    for node in numbers:
        copies[node] = emit_size(graph, expression(node.meta["val"]), sources)
    for node in outside:
        if node not in copies:
            copies[node] = graph.node_copy(node)
    for node in nodes:
        copy = graph.node_copy(node, lambda argument: copies[argument])
        copy.meta["custom"] = {**(node.meta.get("custom") or {}), ORIGIN: node.name}
        copies[node] = copy
    outputs = [node for node in nodes if any(user not in members for user in node.users)]
    graph.output(tuple(copies[node] for node in outputs))
    graph.lint()
    return Part(list(nodes), GraphModule(program, graph), tensors, outputs)


def _outside_nodes(nodes: Sequence[Node], members: set[Node]) -> list[Node]:
    found: dict[Node, None] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            if source not in members:
                found.setdefault(source)
    return list(found)


def _is_constant(node: Node, mutated: frozenset[str]) -> bool:
    return node.op == "get_attr" and node.target not in mutated


def _add_size_carriers(
    tensors: list[Node],
    numbers: Sequence[Node],
    program: GraphModule,
    members: set[Node],
    ranges: SizeRanges,
) -> None:
    """Add inputs of the program to `tensors` until every size in `numbers` can be read from one."""
    carriers = ranges.carriers
    reasons: dict[str, str] = {}
    for number in numbers:
        wanted = expression(number.meta["val"])
        missing = [symbol for symbol in wanted.free_symbols if symbol not in size_sources(tensors)]
        for symbol in missing:
            carrier = carriers.get(symbol)
            if carrier is not None:
                tensors.append(carrier)
                continue
            reason = f"its argument {number.name} ({wanted}) is a size that no tensor tells that goes in"
            reasons.update({user.name: reason for user in number.users if user in members})
    if reasons:
        raise RefusedError(reasons)


def _identifier(name: str) -> str:
    """A name that the bindings of TensorRT, ONNX and Python all take."""
    return re.sub(r"\W", "_", name)
