"""The backend of torch.compile: ``torch.compile(model, backend="trt_rt", options={...})``."""

from __future__ import annotations

import itertools
import logging
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

_MOST_NUMBERS = 8
"""For how many values of its numbers a graph is compiled."""

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
    """One captured graph, and its program for the numbers and the state that modules have now.

    Dynamo passes what belongs to modules with every call. What a program has as a constant is compared with
    that: a tensor that has been replaced by another becomes an input, and for another number there is another
    program.
    """

    def __init__(self, graph: GraphModule, inputs: Sequence[Any], options: dict[str, Any]) -> None:
        self._graph = graph
        self._options = options
        self._room = _ROOM_TO_GROW
        self._by_numbers: dict[tuple[Any, ...], _Compiled] = {}
        self._current = self._compiled(_arguments(graph, inputs))

    @property
    def programs(self) -> list[Program]:
        """Those of all numbers."""
        return [compiled.program for compiled in self._by_numbers.values()]

    def __call__(self, *args: Any) -> Any:
        current = self._current
        if not all(map(operator.is_, current.pick_state(args), current.state)):
            current = self._with_tensors(current, args)
        if current.numbers:
            found = self._with_numbers(current, args)
            if found is None:
                with torch.no_grad():
                    return self._graph(*args)
            current = found
        picked = current.pick(args)
        try:
            return current.run(*picked)
        except InputValueError:
            if any(itertools.starmap(share_elements, itertools.combinations(picked, 2))):
                # The program refuses arguments that share memory which it writes to; the graph is right.
                with torch.no_grad():
                    return self._graph(*args)
            if not current.captured.has_outgrown(picked, self._room):
                raise
        return self._grown(current, picked).run(*picked)

    def _compiled(self, arguments: Sequence[_Argument]) -> _Compiled:
        """Return what runs for some arguments, compiled now if there is nothing yet."""
        numbers = tuple(argument.value for argument in arguments if argument.is_number)
        compiled = self._by_numbers.get(numbers)
        if compiled is None:
            captured = _Captured(self._graph, arguments)
            # Dynamo's own tracing goes on around this: what is exported here must not be part of it.
            with tracing(None), unset_fake_temporarily(), torch.no_grad():
                program = captured.compile(self._options, self._room)
            compiled = self._by_numbers[numbers] = _Compiled(arguments, captured, program)
        self._current = compiled
        return compiled

    def _with_tensors(self, current: _Compiled, args: Sequence[Any]) -> _Compiled:
        """Make inputs of the tensors of modules that are no longer those of the program."""
        _log.info("tensors of modules have been replaced by others; they become inputs of the program")
        self._by_numbers.clear()
        return self._compiled(
            [
                replace(argument, is_constant=argument.is_constant and given is argument.value)
                for argument, given in zip(current.arguments, args, strict=True)
            ]
        )

    def _with_numbers(self, current: _Compiled, args: Sequence[Any]) -> _Compiled | None:
        """Return what runs for the numbers of a call; None if there have been too many."""
        given = {position: _number(args[position]) for position in current.numbers}
        if given == current.numbers:
            return current
        if tuple(given.values()) not in self._by_numbers:
            if len(self._by_numbers) >= _MOST_NUMBERS:
                return None
            if len(self._by_numbers) == _MOST_NUMBERS - 1:
                _log.warning(
                    "%s changes from call to call. A graph of torch.compile is compiled for %d values, and "
                    "runs in PyTorch for others: make it a tensor",
                    ", ".join(current.arguments[position].name for position in given),
                    _MOST_NUMBERS,
                )
        return self._compiled(
            [
                replace(argument, value=given.get(position, argument.value))
                for position, argument in enumerate(current.arguments)
            ]
        )

    def _grown(self, current: _Compiled, picked: Sequence[Any]) -> _Compiled:
        while current.captured.has_outgrown(picked, self._room):
            self._room *= _ROOM_TO_GROW
        _log.warning(
            "sizes have outgrown those that a graph of torch.compile was compiled for; it is compiled again. "
            "torch._dynamo.mark_dynamic(tensor, dimension, max=...) says how far they go"
        )
        self._by_numbers.clear()
        return self._compiled(current.arguments)


class _Compiled:
    """A program of a captured graph, and what of Dynamo's arguments it was compiled for.

    Attributes
    ----------
    arguments : sequence
        What Dynamo passes.
    captured : _Captured
        The graph.
    program : Program
        The program.
    numbers : dict
        Of positions of arguments to the numbers that are constants.
    state : tuple of torch.Tensor
        The tensors of modules that are constants; `pick_state` picks them from the arguments.
    pick, run : callable
        Pick the program's inputs from the arguments, and run the program.
    """

    def __init__(self, arguments: Sequence[_Argument], captured: _Captured, program: Program) -> None:
        self.arguments = arguments
        self.captured = captured
        self.program = program
        self.numbers = {index: each.value for index, each in enumerate(arguments) if each.is_number}
        state = {index: each.value for index, each in enumerate(arguments) if each.is_constant}
        self.state = tuple(state.values())
        self.pick_state = _picker(list(state))
        self.pick = _picker(captured.positions)
        self.run = program._run


@dataclass(frozen=True)
class _Argument:
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


def _arguments(graph: GraphModule, inputs: Sequence[Any]) -> list[_Argument]:
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
            found.append(_Argument(name, value if is_constant else None, example, is_constant))
        elif isinstance(example, torch.SymInt) and (not node.users or expression(example) in sizes):
            found.append(_Argument(name, None, example))
        elif isinstance(value, (int, float, torch.SymInt, torch.SymFloat, torch.Tensor)):
            found.append(_Argument(name, _number(value), example, is_number=True))
        else:
            raise CompileError(
                f"the argument {name} of the graph is a {type(value).__name__} that may change: make it a "
                "tensor, or a constant"
            )
    return found


def _number(given: Any) -> Any:
    """Return a number that Dynamo passes as it is, as a symbol, or as a tensor."""
    if isinstance(given, (torch.SymInt, torch.SymFloat)):
        return given.node.hint
    return given.item() if isinstance(given, torch.Tensor) else given


class _Captured:
    """A graph of Dynamo with its module state bound, ready for torch.export.

    Attributes
    ----------
    positions : list of int
        Which of the graph's placeholders are inputs of the program.
    """

    def __init__(self, graph: GraphModule, arguments: Sequence[_Argument]) -> None:
        self.positions: list[int] = []
        self._shapes: list[Sequence[Any]] = []
        self._limits: dict[Any, ValueRanges[Any]] = {}
        self._hints: dict[Any, int] = {}
        self._examples: list[torch.Tensor] = []
        self._module = self._bind(graph, arguments)

    def _bind(self, graph: GraphModule, arguments: Sequence[_Argument]) -> GraphModule:
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


def _belongs_to_a_module(argument: Any) -> bool:
    source = argument.source
    return source is not None and source.guard_source.is_unspecialized_nn_module()


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
            raise AssertionError("numbers that are no sizes are constants")
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
        return iter([program for graph in self._graphs for program in graph.programs])

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
