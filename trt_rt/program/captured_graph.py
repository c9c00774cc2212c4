"""A graph that Dynamo has captured, with what belongs to modules bound, ready for torch.export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import Dim
from torch.fx import Graph, GraphModule, Node
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from trt_rt.compiled.program import Program
from trt_rt.compiled.size_bounds import LARGEST_SIZE, expression
from trt_rt.compiler import export_program
from trt_rt.program.dynamo_arguments import GraphArgument
from trt_rt.program.pipeline import ModelSource, compile_exported
from trt_rt.program.settings import settings_of_options
from trt_rt.program.steps import shown_steps

__all__ = ["CapturedGraph"]


class CapturedGraph:
    """A graph of Dynamo with its module state bound, ready for torch.export.

    Attributes
    ----------
    positions : list of int
        Which of the graph's placeholders are inputs of the program.
    """

    def __init__(self, graph: GraphModule, arguments: Sequence[GraphArgument]) -> None:
        self.positions: list[int] = []
        self._shapes: list[Sequence[Any]] = []
        self._limits: dict[Any, ValueRanges[Any]] = {}
        self._hints: dict[Any, int] = {}
        self._examples: list[torch.Tensor] = []
        self._module = self._bind(graph, arguments)

    def _bind(self, graph: GraphModule, arguments: Sequence[GraphArgument]) -> GraphModule:
        # Dynamo still reads its own graph.
        copied = Graph()
        copied.output(copied.graph_copy(graph.graph, {}))
        module = GraphModule(graph, copied)
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        numbers: list[Node] = []
        tensors: list[Node] = []
        for position, (node, argument) in enumerate(zip(placeholders, arguments, strict=True)):
            if argument.is_constant:
                _bind_state(module, node, argument.value)
            elif argument.is_number:
                _fold_number(node, argument.value)
                module.graph.erase_node(node)
            elif isinstance(argument.example, torch.Tensor):
                self._add_input(node, argument.example, position)
                tensors.append(node)
            else:
                numbers.append(node)
        _read_numbers_from_tensors(module, numbers, tensors)
        module.recompile()
        return module

    def _add_input(self, node: Node, example: torch.Tensor, position: int) -> None:
        self.positions.append(position)
        self._shapes.append(tuple(example.shape))
        shape = []
        for size in example.shape:
            found = expression(size)
            if isinstance(found, int):
                shape.append(found)
                continue
            assert isinstance(size, torch.SymInt)
            environment = size.node.shape_env
            self._limits[found] = bound_sympy(found, environment.var_to_range)
            self._hints[found] = int(size.node.hint)
            shape.append(self._hints[found])
        self._examples.append(torch.empty(shape, dtype=example.dtype, device=example.device))

    def _limit(self, size: Any, room: int) -> tuple[int, int]:
        found = expression(size)
        if isinstance(found, int):
            return found, found
        limits = self._limits[found]
        high = int(limits.upper) if limits.upper <= LARGEST_SIZE else self._hints[found] * room
        return int(max(limits.lower, 0)), high

    def has_outgrown(self, arguments: Sequence[Any], room: int) -> bool:
        """Whether a size without an end is larger than the program allows."""
        return any(
            given > self._limit(size, room)[1] and not isinstance(expression(size), int)
            for argument, shape in zip(arguments, self._shapes, strict=True)
            for given, size in zip(argument.shape, shape, strict=True)
        )

    def compile(self, options: dict[str, Any], room: int) -> Program:
        """Export the graph and compile that."""
        dimensions = tuple(
            {
                axis: Dim.AUTO(**dict(zip(("min", "max"), self._limit(size, room), strict=True)))
                for axis, size in enumerate(shape)
                if not isinstance(expression(size), int)
            }
            for shape in self._shapes
        )
        exported = export_program(self._module, self._examples, dynamic_shapes=dimensions)
        settings, cache_dir = settings_of_options(options, self._module, self._examples)
        with shown_steps(False) as steps:
            source = ModelSource(exported, "torch.compile", owns_buffers=False)
            return compile_exported(source, settings, cache_dir=cache_dir, steps=steps).program


def _bind_state(module: GraphModule, node: Node, value: torch.Tensor) -> None:
    """Replace a placeholder by the parameter or buffer of a module that it stands for."""
    name = f"state_{node.name}"
    if isinstance(value, torch.nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)
    with module.graph.inserting_before(node):
        replacement: Any = module.graph.get_attr(name)
    node.replace_all_uses_with(replacement)
    module.graph.erase_node(node)


def _fold_number(node: Node, number: Any) -> None:
    """Put a number back in, such as an eps: with dynamic=True Dynamo makes it a tensor."""
    for user in list(node.users):
        if user.op in ("call_method", "call_function") and _reads_number(user):
            _replace(user, number)
            node.graph.erase_node(user)
    _replace(node, number)


_NUMBER_OF = ("item", torch.ops.aten.item.default, torch.sym_float, torch.sym_int)


def _reads_number(node: Node) -> bool:
    return node.target in _NUMBER_OF


def _replace(node: Node, number: Any) -> None:
    for user in list(node.users):
        user.args = torch.fx.map_arg(user.args, lambda given: number if given is node else given)
        user.kwargs = torch.fx.map_arg(user.kwargs, lambda given: number if given is node else given)


def _read_numbers_from_tensors(module: GraphModule, numbers: Sequence[Node], tensors: Sequence[Node]) -> None:
    """Replace sizes among the placeholders by the sizes of tensors."""
    graph = module.graph
    first = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    for number in numbers:
        wanted = number.meta.get("example_value")
        if not number.users:
            graph.erase_node(number)
            continue
        for tensor in tensors:
            shape = tensor.meta["example_value"].shape
            axis = next(
                (axis for axis, size in enumerate(shape) if expression(size) == expression(wanted)), None
            )
            if axis is not None:
                break
        else:
            raise AssertionError("numbers that are no sizes are constants")
        with graph.inserting_before(first):
            size = graph.call_function(torch.ops.aten.sym_size.int, (tensor, axis))
        number.replace_all_uses_with(size)
        graph.erase_node(number)
