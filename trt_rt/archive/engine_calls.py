"""Turns calls of the operator in a loaded graph back into calls of modules."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

import torch
from torch.fx import Graph, Node

from trt_rt.archive.engine_nodes import EngineOfFile
from trt_rt.operator import OPERATOR

__all__ = ["call_modules"]


def call_modules(graph: Graph, engines: Iterable[EngineOfFile]) -> None:
    """Replace calls of ``trt_rt::execute_engine`` by calls of the program's submodules.

    The operator gives an engine that writes into an input a copy of it, and returns the copy. A module writes
    into the input itself. So where nothing else needs the old value, the copy is left out, and with it the
    ``copy_`` by which the program writes the result back.

    Parameters
    ----------
    graph : torch.fx.Graph
        Changed in place.
    engines : iterable of EngineOfFile
        Those that get calls. Plans that are no engine's stay arguments of the operator.
    """
    by_plan = {engine.plan: engine for engine in engines}
    for node in list(graph.nodes):
        if node.target is not OPERATOR:
            continue
        inputs, plan, _ = node.args
        engine = by_plan.get(str(plan.target)) if plan.op == "get_attr" else None
        if engine is not None:
            _Call(graph, node, list(inputs), engine).replace()
            if not plan.users:
                graph.erase_node(plan)
    for node in reversed(graph.nodes):  # PyTorch's deserializer picks every result of an operator
        if node.target is operator.getitem and not node.users:
            graph.erase_node(node)


class _Call:
    """One call of the operator."""

    def __init__(self, graph: Graph, node: Node, inputs: list[Node], engine: EngineOfFile) -> None:
        self._graph = graph
        self._node = node
        self._inputs = inputs
        self._engine = engine
        self._results: dict[int, list[Node]] = {}
        for user in list(node.users):
            position = user.args[1]
            assert user.target is operator.getitem
            assert isinstance(position, int)
            self._results.setdefault(position, []).append(user)

    def replace(self) -> None:
        meta = self._engine.meta
        names = [tensor.name for tensor in meta.inputs]
        written: Mapping[int, int] = {
            position: names.index(meta.aliased_io[tensor.name])
            for position, tensor in enumerate(meta.outputs)
            if tensor.name in meta.aliased_io
        }
        for position, source in written.items():
            self._write_in_place(position, source)
        returned = [position for position in range(len(meta.outputs)) if position not in written]
        values = self._node.meta["val"]
        with self._graph.inserting_before(self._node):
            # `Graph.call_module` would look for the submodule, which only the program will have.
            call = self._graph.create_node("call_module", self._engine.name, tuple(self._inputs))
            call.meta["val"] = tuple(values[position] for position in returned)
            if len(returned) == 1:
                call.meta["val"] = values[returned[0]]
        for position, items in self._results.items():
            for item in items:
                if position in written:
                    self._replace(item, self._inputs[written[position]])
                elif len(returned) == 1:
                    self._replace(item, call)
                else:
                    item.args = (call, returned.index(position))
        self._graph.erase_node(self._node)

    def _write_in_place(self, position: int, source: int) -> None:
        """Let the engine write into an input where it may, and otherwise into a copy."""
        given = self._inputs[source]
        results = self._results.get(position, [])
        copies = [
            user
            for item in results
            for user in item.users
            if user.target is torch.ops.aten.copy_.default and user.args[0] is given
        ]
        later = [user for user in given.users if user not in copies and not user < self._node]
        uses_of_copies = any(copy.users for copy in copies)
        if (
            given.op in ("placeholder", "get_attr")
            and copies
            and later == [self._node]
            and not uses_of_copies
        ):
            for copy in copies:
                self._graph.erase_node(copy)
            return
        with self._graph.inserting_before(self._node):
            clone = self._graph.call_function(
                torch.ops.aten.clone.default, (given,), {"memory_format": torch.contiguous_format}
            )
            clone.meta["val"] = given.meta["val"]
        self._inputs[source] = clone

    def _replace(self, item: Node, by: Node) -> None:
        item.replace_all_uses_with(by)
        self._graph.erase_node(item)
