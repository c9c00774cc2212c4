"""Divides a program's graph into parts that become engines, and operators that stay in PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from trt_rt.compiled.node_kinds import CHEAP_VIEWS, is_number, is_view
from trt_rt.program.exporting import ProgramGraph
from trt_rt.program.part import Part, RefusedError, extract_part
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.support import Support
from trt_rt.program.truncation import CASTS_FOR_TRUNCATION

__all__ = ["Divided", "PreparedPart", "divide"]


@dataclass
class PreparedPart:
    """A part of which its backend's parser has refused nothing.

    Attributes
    ----------
    part : Part
        The operators.
    exported : torch.export.ExportedProgram
        The part, exported alone.
    converted : object
        What the backend builds from, besides `exported`: an ``ONNXProgram``; None for the reference backend.
    """

    part: Part
    exported: Any
    converted: Any


@dataclass
class Divided:
    """A program's graph, divided.

    Attributes
    ----------
    parts : list of PreparedPart
        In the order of their first operators.
    reasons : dict
        For operators that stay in PyTorch, by name of the node.
    """

    parts: list[PreparedPart]
    reasons: dict[str, str] = field(default_factory=dict)


def divide(
    program: ProgramGraph,
    ranges: SizeRanges,
    support: Support,
    min_block_size: int,
    prepare: Callable[[Part], PreparedPart],
    progress: Callable[[float], None],
) -> Divided:
    """Divide a program's graph into as few parts as its operators allow.

    Parameters
    ----------
    program : ProgramGraph
        Not changed.
    ranges : SizeRanges
        Of the program.
    support : Support
        Learns which operators a try has refused.
    min_block_size : int
        A part with fewer operators stays in PyTorch.
    prepare : callable
        Exports a part and asks the backend about it. Raises RefusedError.
    progress : callable
        Told which fraction of the operators in parts has been prepared.
    """
    reasons: dict[str, str] = {}
    prepared: dict[frozenset[str], PreparedPart] = {}
    while True:
        reasons.clear()
        proposals = _propose(program, support, min_block_size, reasons)
        refused: dict[str, str] = {}
        done, count = 0, sum(map(len, proposals))
        for nodes in proposals:
            progress(done / count)
            done += len(nodes)
            names = frozenset(node.name for node in nodes)
            if names in prepared:
                continue
            try:
                part = extract_part(program.module, nodes, program.mutated_state, ranges)
                prepared[names] = prepare(part)
            except RefusedError as error:
                refused.update(error.reasons or dict.fromkeys(names, "its part was refused"))
        if not refused:
            wanted = [frozenset(node.name for node in nodes) for nodes in proposals]
            return Divided([prepared[names] for names in wanted], reasons)
        support.found.update(refused)


def _propose(
    program: ProgramGraph, support: Support, min_block_size: int, reasons: dict[str, str]
) -> list[list[Node]]:
    """Return the nodes of each part, in the graph's order; `reasons` gets why others are in none."""
    order = {node: index for index, node in enumerate(program.module.graph.nodes)}
    partitioner = _Partitioner(program.module, _SupportedNodes(support), allows_single_node_partition=True)
    proposals = [sorted(found.nodes, key=order.__getitem__) for found in partitioner.propose_partitions()]
    kept = []
    all_operators = len(_computing(node for node in order if node.op == "call_function"))
    for nodes in sorted(proposals, key=lambda nodes: order[nodes[0]]):
        nodes = _without_last_views(nodes, reasons)
        # A whole model is an engine, however small.
        fewest = min(min_block_size, all_operators)
        if reason := _why_not_worth_it(nodes, program.mutated_state, fewest):
            reasons.update({node.name: reason for node in nodes})
        else:
            kept.append(nodes)
    for node in order:
        if unsupported := support.reason(node):
            reasons[node.name] = unsupported
    return kept


class _Partitioner(CapabilityBasedPartitioner):
    def _is_node_supported(self, node: Node) -> bool:
        # PyTorch's own lists all submodules for each node.
        return self.operator_support.is_node_supported({}, node)


class _SupportedNodes(OperatorSupportBase):
    def __init__(self, support: Support) -> None:
        self._support = support

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: Node) -> bool:
        return self._support.reason(node) is None


def _without_last_views(nodes: Sequence[Node], reasons: dict[str, str]) -> list[Node]:
    """Leave out views whose results only leave the part.

    PyTorch makes them without a copy, and what they view keeps sharing memory with them.
    """
    members = dict.fromkeys(nodes)
    for node in reversed(nodes):
        if any(user in members for user in node.users) or not is_view(node):
            continue
        viewed = node.all_input_nodes[0]
        leaves_anyway = viewed not in members or any(user not in members for user in viewed.users)
        if node.target in CHEAP_VIEWS and not leaves_anyway:
            continue
        del members[node]
        reasons[node.name] = "it is a view of what an engine or the caller gives, which costs no copy here"
    return list(members)


def _computing(nodes: Iterable[Node]) -> list[Node]:
    return [
        node
        for node in nodes
        if node.target is not operator.getitem
        and not is_number(node)
        and not is_view(node)
        and CASTS_FOR_TRUNCATION not in node.meta
    ]


def _why_not_worth_it(nodes: Sequence[Node], mutated: frozenset[str], min_block_size: int) -> str:
    members = set(nodes)
    computing = _computing(nodes)
    if not computing:
        return "there are only views here, which PyTorch makes without a copy"
    inputs = [source for node in nodes for source in node.all_input_nodes if source not in members]
    tensors = [
        node for node in inputs if not is_number(node) and (node.op != "get_attr" or node.target in mutated)
    ]
    if not tensors:
        return "its part has no tensor among its inputs"
    if len(computing) < min_block_size:
        count = f"{len(computing)} operator{'s' if len(computing) != 1 else ''}"
        return f"its part has {count}, and min_block_size is {min_block_size}"
    return ""
