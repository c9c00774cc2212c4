"""The backend of torch.compile: ``torch.compile(model, backend="trt_rt", options={...})``."""

from __future__ import annotations

import logging
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import GraphModule

from trt_rt._core.shared_memory import shared_pair
from trt_rt.compiled.program import Program
from trt_rt.errors import InputValueError
from trt_rt.program.captured_graph import CapturedGraph
from trt_rt.program.dynamo_arguments import GraphArgument, graph_arguments, number

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
        self._by_numbers: dict[tuple[str, ...], _Compiled] = {}
        self._current = self._compiled(graph_arguments(graph, inputs))

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
            if shared_pair(picked, range(len(picked))) is not None:
                # The program refuses arguments that share memory which it writes to; the graph is right.
                with torch.no_grad():
                    return self._graph(*args)
            if not current.captured.has_outgrown(picked, self._room):
                raise
        return self._grown(current, picked).run(*picked)

    def _compiled(self, arguments: Sequence[GraphArgument]) -> _Compiled:
        """Return what runs for some arguments, compiled now if there is nothing yet."""
        key = _key(argument.value for argument in arguments if argument.is_number)
        compiled = self._by_numbers.get(key)
        if compiled is None:
            captured = CapturedGraph(self._graph, arguments)
            # Dynamo's own tracing goes on around this: what is exported here must not be part of it.
            with tracing(None), unset_fake_temporarily(), torch.no_grad():
                program = captured.compile(self._options, self._room)
            compiled = self._by_numbers[key] = _Compiled(arguments, captured, program)
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
        given = [number(args[position]) for position in current.numbers]
        key = _key(given)
        if key == current.key:
            return current
        if (known := self._by_numbers.get(key)) is not None:
            self._current = known
            return known
        if len(self._by_numbers) >= _MOST_NUMBERS:
            return None
        if len(self._by_numbers) == _MOST_NUMBERS - 1:
            _log.warning(
                "%s changes from call to call. A graph of torch.compile is compiled for %d values, and runs "
                "in PyTorch for others: make it a tensor",
                ", ".join(current.arguments[position].name for position in current.numbers),
                _MOST_NUMBERS,
            )
        values = iter(given)
        return self._compiled(
            [
                replace(argument, value=next(values)) if argument.is_number else argument
                for argument in current.arguments
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
    captured : CapturedGraph
        The graph.
    program : Program
        The program.
    numbers : list of int
        Positions of the numbers that are constants.
    key : tuple of str
        Tells these numbers from others.
    state : tuple of torch.Tensor
        The tensors of modules that are constants; `pick_state` picks them from the arguments.
    pick, run : callable
        Pick the program's inputs from the arguments, and run the program.
    """

    def __init__(self, arguments: Sequence[GraphArgument], captured: CapturedGraph, program: Program) -> None:
        self.arguments = arguments
        self.captured = captured
        self.program = program
        self.numbers = [index for index, each in enumerate(arguments) if each.is_number]
        self.key = _key(arguments[index].value for index in self.numbers)
        state = {index: each.value for index, each in enumerate(arguments) if each.is_constant}
        self.state = tuple(state.values())
        self.pick_state = _picker(list(state))
        self.pick = _picker(captured.positions)
        self.run = program._run


def _key(numbers: Iterable[Any]) -> tuple[str, ...]:
    """Tell numbers apart that are equal, as 0.0 and -0.0, and find NaN again, which does not equal itself."""
    return tuple(map(repr, numbers))


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
