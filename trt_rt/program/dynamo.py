"""The backend of torch.compile: ``torch.compile(model, backend="trt_rt", options={...})``."""

from __future__ import annotations

import itertools
import logging
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.export import Dim
from torch.fx import Graph, GraphModule, Node
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from trt_rt._core.shared_memory import share_elements
from trt_rt.compiled.program import Program
from trt_rt.compiled.size_bounds import LARGEST_SIZE, expression
from trt_rt.compiler import export_program
from trt_rt.errors import CompileError, InputValueError
from trt_rt.program.pipeline import ModelSource, compile_exported
from trt_rt.program.settings import settings_of_options
from trt_rt.program.steps import shown_steps

__all__ = ["trt_rt_backend"]

_log = logging.getLogger("trt_rt.compiler")

_ROOM_TO_GROW = 4
"""A size without an end is first compiled for up to this many times the size that it has."""

_PROGRAMS = "_trt_rt_programs"
"""Attribute of a compiled module under which controls find its programs."""


def trt_rt_backend(
    graph: GraphModule, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Compile a graph that Dynamo has captured.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        What Dynamo has captured. Parameters and buffers of modules are constants of the program, but for
        buffers that it writes to.
    inputs : sequence
        Example values of the graph's placeholders.
    options : mapping, optional
        Parameters of `trt_rt.compile`: ``backend``, ``min_block_size``, ``torch_executed_ops``,
        ``cache_dir``, ``workspace_bytes``, ...

    Returns
    -------
    callable
        What Dynamo calls in place of the graph. It computes without gradients.

    Raises
    ------
    CompileError
        The graph cannot be compiled, or an option is unknown. Dynamo raises its own ``BackendCompilerFailed``
        from it.
    """
    compiled = _CompiledGraph(graph, inputs, dict(options or {}))
    _show_to_controls(compiled)
    return compiled


class _CompiledGraph:
    """One captured graph and its program."""

    def __init__(self, graph: GraphModule, inputs: Sequence[Any], options: dict[str, Any]) -> None:
        self._graph = graph
        self._options = options
        self._captured = _Captured(graph, inputs)
        self._room = _ROOM_TO_GROW
        self._pick = _picker(self._captured.positions)
        self.program = self._compile()
        self._run = self.program._run

    def __call__(self, *args: Any) -> Any:
        picked = self._pick(args)
        try:
            return self._run(*picked)
        except InputValueError:
            if any(itertools.starmap(share_elements, itertools.combinations(picked, 2))):
                # The program refuses arguments that share memory which it writes to; the graph is right.
                with torch.no_grad():
                    return self._graph(*args)
            if not self._captured.has_outgrown(picked, self._room):
                raise
        self._grow(picked)
        return self._run(*picked)

    def _compile(self) -> Program:
        # Dynamo's own tracing goes on around this: what is exported here must not be part of it.
        with tracing(None), unset_fake_temporarily(), torch.no_grad():
            return self._captured.compile(self._options, self._room)

    def _grow(self, picked: Sequence[Any]) -> None:
        while self._captured.has_outgrown(picked, self._room):
            self._room *= _ROOM_TO_GROW
        _log.warning(
            "sizes have outgrown those that a graph of torch.compile was compiled for; it is compiled again. "
            "torch._dynamo.mark_dynamic(tensor, dimension, max=...) says how far they go"
        )
        self.program = self._compile()
        self._run = self.program._run


class _Captured:
    """A graph of Dynamo with its module state bound, ready for torch.export.

    Attributes
    ----------
    positions : list of int
        Which of the graph's placeholders are inputs of the program.
    """

    def __init__(self, graph: GraphModule, inputs: Sequence[Any]) -> None:
        self.positions: list[int] = []
        self._shapes: list[Sequence[Any]] = []
        self._limits: dict[Any, ValueRanges[Any]] = {}
        self._hints: dict[Any, int] = {}
        self._examples: list[torch.Tensor] = []
        self._module = self._bind(graph, inputs)

    def _bind(self, graph: GraphModule, inputs: Sequence[Any]) -> GraphModule:
        # Dynamo still reads its own graph.
        copied = Graph()
        copied.output(copied.graph_copy(graph.graph, {}))
        module = GraphModule(graph, copied)
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        numbers: list[Node] = []
        tensors: list[Node] = []
        for position, (node, value) in enumerate(zip(placeholders, inputs, strict=True)):
            argument = node.meta["grapharg"]
            example = node.meta.get("example_value", value)
            if _belongs_to_a_module(argument):
                _bind_state(module, node, argument)
            elif isinstance(example, (torch.SymInt, int)):
                numbers.append(node)
            elif isinstance(example, torch.Tensor) and argument.is_tensor:
                self._add_input(node, example, position)
                tensors.append(node)
            else:
                kind = type(argument.example).__name__
                raise CompileError(
                    f"the argument {argument.source.name} of the graph is a {kind} that may change: make it "
                    "a tensor, or a constant"
                )
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
        return max(int(limits.lower), 0), high

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


def _belongs_to_a_module(argument: Any) -> bool:
    source = argument.source
    return source is not None and source.guard_source.is_unspecialized_nn_module()


def _bind_state(module: GraphModule, node: Node, argument: Any) -> None:
    """Replace a placeholder by the parameter, buffer or number of a module that it stands for."""
    value = argument.example
    if isinstance(value, torch.Tensor) and argument.is_tensor:
        name = f"state_{node.name}"
        if isinstance(value, torch.nn.Parameter):
            module.register_parameter(name, value)
        else:
            module.register_buffer(name, value)
        with module.graph.inserting_before(node):
            replacement: Any = module.graph.get_attr(name)
        node.replace_all_uses_with(replacement)
    else:
        _fold_number(module, node, value)
    module.graph.erase_node(node)


def _fold_number(module: GraphModule, node: Node, value: Any) -> None:
    """Put a module's own number, such as an eps, back in: with dynamic=True Dynamo makes it a tensor."""
    number = value.item() if isinstance(value, torch.Tensor) else value
    for user in list(node.users):
        if user.op in ("call_method", "call_function") and _reads_number(user):
            _replace(user, number)
            module.graph.erase_node(user)
        else:
            user.args = torch.fx.map_arg(user.args, lambda given: number if given is node else given)
            user.kwargs = torch.fx.map_arg(user.kwargs, lambda given: number if given is node else given)


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
            raise CompileError(
                f"the argument {number.meta['grapharg'].source.name} of the graph is a number that may "
                "change and that is the size of no tensor: make it a tensor, or a constant"
            )
        with graph.inserting_before(first):
            size = graph.call_function(torch.ops.aten.sym_size.int, (tensor, axis))
        number.replace_all_uses_with(size)
        graph.erase_node(number)


def _picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    if len(positions) > 1:
        return operator.itemgetter(*positions)
    if positions:
        (position,) = positions
        return lambda args: (args[position],)
    return lambda args: ()


class _Programs(torch.nn.Module):
    """The programs of a module that Dynamo still has: they go when Dynamo drops its code.

    It is no submodule of the module, and so in neither its ``state_dict`` nor its ``repr``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._graphs: weakref.WeakSet[_CompiledGraph] = weakref.WeakSet()

    def add(self, graph: _CompiledGraph) -> None:
        """Add what was compiled."""
        self._graphs.add(graph)

    def children(self) -> Iterator[torch.nn.Module]:
        """Return the programs."""
        return iter([graph.program for graph in self._graphs])

    def __deepcopy__(self, memo: dict[int, Any]) -> _Programs:
        """A copy of a module has no compiled code yet."""
        return _Programs()

    def __reduce__(self) -> Any:
        return (_Programs, ())


def _show_to_controls(compiled: _CompiledGraph) -> None:
    """Let controls that are given the compiled module find its engines."""
    module = _compiled_module()
    if module is None:
        return
    programs = vars(module).get(_PROGRAMS)
    if programs is None:
        programs = vars(module)[_PROGRAMS] = _Programs()
    programs.add(compiled)


def _compiled_module() -> torch.nn.Module | None:
    """Return the module whose forward Dynamo is compiling; None for a function."""
    if TracingContext.try_get() is None:
        return None
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        names = InstructionTranslator.current_tx().output.root_tx.f_locals
    except AttributeError:
        return None
    # PyTorch's own modules are called through a function whose variable `fn` is their bound method.
    owners = (names.get("self"), getattr(names.get("fn"), "__self__", None), names.get("fn"))
    return next((owner for owner in owners if isinstance(owner, torch.nn.Module)), None)
