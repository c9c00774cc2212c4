"""What a program from a file calls in place of operators that it could misuse.

The arguments that are in the file were checked when it was read. What is left are the operators that a plan
of the reference backend replaces by stand-ins, and those that take numbers which the program computes. All
other operators are called as those of a compiled program are, so most programs have none of these checks.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from trt_rt.compiled.torch_functions import TorchFunctions
from trt_rt.reference.arguments import Reference
from trt_rt.reference.number_limits import check_float, check_integer
from trt_rt.reference.parameters import Parameter, check_arguments, parameters_of
from trt_rt.reference.safe_operators import SAFE_OPERATORS, is_traced

__all__ = ["GuardedFunctions", "check_constants"]

_OF_SIZES = frozenset(
    f"aten.{name}"
    for name in (
        *("view.default", "_unsafe_view.default", "view_copy.default", "reshape.default"),
        *("expand.default", "expand_copy.default", "broadcast_to.default", "unflatten.int"),
        *("slice.Tensor", "slice_copy.Tensor", "select.int", "select_copy.int", "narrow.default"),
        *("split.Tensor", "split_with_sizes.default", "repeat.default"),
        *("zeros.default", "ones.default", "full.default", "empty.memory_format"),
        *("new_zeros.default", "new_ones.default", "new_full.default", "new_empty.default"),
        *("arange.default", "arange.start", "arange.start_step", "scalar_tensor.default"),
        *("sym_constrain_range.default", "sym_constrain_range_for_size.default"),
    )
)
"""Operators that compare every number with a size, or multiply sizes with a check, themselves."""


class GuardedFunctions(TorchFunctions):
    """Chooses functions that check what operators do not."""

    def function(self, node: Node) -> Callable[..., Any]:
        """Return what to call for a node's operator; it raises ValueError or TypeError for misuse."""
        return _guard(node) or super().function(node)

    @staticmethod
    def branch(graph: GraphModule) -> GraphModule:
        """Return a copy of a branch that calls guarded functions, or the branch if it needs none."""
        guards = {
            node: guard
            for node in graph.graph.nodes
            if node.op == "call_function" and (guard := _guard(node)) is not None
        }
        inner = {
            name: GuardedFunctions.branch(child)
            for name, child in graph.named_children()
            if isinstance(child, GraphModule)
        }
        if not guards and all(getattr(graph, name) is child for name, child in inner.items()):
            return graph
        guarded = copy.deepcopy(graph.graph)
        for node, copied in zip(graph.graph.nodes, guarded.nodes, strict=True):
            copied.target = guards.get(node, copied.target)
        made = GraphModule(graph, guarded)
        for name, child in inner.items():
            setattr(made, name, child)
        return made


def check_constants(node: Node) -> None:
    """Check the arguments of a node that are known before the program runs.

    Raises
    ------
    TypeError, ValueError
        An argument is not what the node's operator is declared to take, or a number is out of range.
    """
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        args, kwargs = tree_map(_known, (node.args, dict(node.kwargs)))
        check_arguments(_parameters(target), args, kwargs)


@functools.cache
def _parameters(target: torch._ops.OpOverload) -> tuple[Parameter, ...]:
    return parameters_of(target._schema)


def _known(value: Any) -> Any:
    return Reference(0) if isinstance(value, Node) else value


def _guard(node: Node) -> Callable[..., Any] | None:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    function = SAFE_OPERATORS.get(str(target))
    computed = [] if str(target) in _OF_SIZES else _computed_numbers(node, target)
    return _checking(function or target, computed) if computed else function


def _computed_numbers(node: Node, target: torch._ops.OpOverload) -> list[tuple[int, str]]:
    """Return the positions and names of parameters with bounds whose numbers the program computes."""
    found = []
    for position, parameter in enumerate(_parameters(target)):
        if parameter.type in ("int", "float"):
            given: Any = node.kwargs.get(parameter.name)
            if position < len(node.args):
                given = node.args[position]
            if any(
                isinstance(value, Node) for value in (given if isinstance(given, (list, tuple)) else [given])
            ):
                found.append((position, parameter.name))
    return found


def _checking(function: Callable[..., Any], computed: Sequence[tuple[int, str]]) -> Callable[..., Any]:
    def checked(*args: Any, **kwargs: Any) -> Any:
        for position, name in () if is_traced() else computed:
            _check(name, args[position] if position < len(args) else kwargs[name])
        return function(*args, **kwargs)

    return checked


def _check(name: str, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for element in value:
            _check(name, element)
    elif isinstance(value, int):
        check_integer(name, value)
    elif isinstance(value, float):
        check_float(name, value)
    elif isinstance(value, torch.Tensor):
        # PyTorch would read the number that it holds.
        raise TypeError(f"argument {name!r} must be a number, not a tensor")
