"""Sizes in graphs: read from tensors that are inputs, never from what an engine computes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.proxy import GraphAppendingTracer, Proxy
from torch.utils._pytree import tree_leaves
from torch.utils._sympy.functions import FloorDiv
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis
from torch.utils._sympy.value_ranges import ValueRanges

from trt_rt.compiled.node_kinds import is_number
from trt_rt.compiled.size_bounds import bounds, expression

__all__ = [
    "SizeSource",
    "emit_size",
    "limit_sizes_of_results",
    "read_sizes_from_inputs",
    "size_sources",
    "tensor_inputs",
]

NOT_IN_ENGINES = frozenset({torch.float64, torch.complex32, torch.complex64, torch.complex128})
"""Types of tensors that engines neither take, compute nor return."""

_SIZE_OF_A_RESULT = frozenset(
    {
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.unique_consecutive.default,
        torch.ops.aten.unique_dim.default,
        torch.ops.aten._unique2.default,
        torch.ops.aten.index.Tensor,
    }
)
"""Operators whose result has at most as many rows as their first argument has elements."""


class _FloorOfNegatives(PythonReferenceAnalysis):
    """Divides so that nothing is rounded: ONNX rounds to zero, Python down."""

    @staticmethod
    def floordiv(a: Any, b: Any) -> Any:
        return (a - a % b) // b


@dataclass(frozen=True)
class SizeSource:
    """Where a symbol can be read: dimension `axis` of `tensor` is ``scale * symbol + offset``."""

    tensor: Node
    axis: int
    scale: int = 1
    offset: int = 0


def tensor_inputs(graph: Graph) -> list[Node]:
    """Return the placeholders that stand for tensors."""
    return [
        node
        for node in graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
    ]


def size_sources(tensors: Iterable[Node]) -> dict[Any, SizeSource]:
    """Return where each symbol can be read that a dimension of `tensors` depends on.

    A dimension that is the symbol itself is preferred to one from which it must be computed.
    """
    plain: dict[Any, SizeSource] = {}
    computed: dict[Any, SizeSource] = {}
    for tensor in tensors:
        for axis, size in enumerate(tensor.meta["val"].shape):
            found = expression(size)
            if isinstance(found, int):
                continue
            if found.is_Symbol:
                plain.setdefault(found, SizeSource(tensor, axis))
            elif len(found.free_symbols) == 1:
                (symbol,) = found.free_symbols
                scale, offset = found.coeff(symbol, 1), found.coeff(symbol, 0)
                if scale.is_Integer and offset.is_Integer and found - scale * symbol - offset == 0:
                    computed.setdefault(symbol, SizeSource(tensor, axis, int(scale), int(offset)))
    return {**computed, **plain}


def emit_size(graph: Graph, wanted: Any, sources: Mapping[Any, SizeSource]) -> Node | int | float | bool:
    """Add nodes to a graph, at its insertion point, that compute an expression from the sizes of tensors.

    Parameters
    ----------
    graph : torch.fx.Graph
        The tensors of `sources` are nodes of it.
    wanted : sympy.Expr
        All of its symbols must be in `sources`.
    sources : mapping
        As `size_sources` gives it.

    Returns
    -------
    Node or number
        A number where the expression is constant.
    """
    tracer = GraphAppendingTracer(graph)
    environment: dict[Any, Any] = {}
    for symbol in wanted.free_symbols:
        source = sources[symbol]
        node = graph.call_function(torch.ops.aten.sym_size.int, (source.tensor, source.axis))
        size: Any = Proxy(node, tracer)
        if source.offset:
            size = size - source.offset
        if source.scale != 1:
            size = size // source.scale
        environment[symbol] = size
    divided = wanted.atoms(FloorDiv)
    plain = all(division.args[0].is_nonnegative for division in divided)
    analysis = PythonReferenceAnalysis if plain else _FloorOfNegatives
    result = sympy_interp(analysis, environment, wanted)
    return result.node if isinstance(result, Proxy) else result


def read_sizes_from_inputs(graph: Graph, ranges: Mapping[Any, Any]) -> None:
    """Rewrite a program's graph so that every size that its inputs determine is read from them.

    Otherwise engines would have to give sizes of what they compute, and numbers, to what comes after. Checks
    of sizes that the ranges imply are removed.

    Parameters
    ----------
    graph : torch.fx.Graph
        Changed in place.
    ranges : mapping
        Of symbol to the range for which the program is right.
    """
    sources = size_sources(tensor_inputs(graph))
    known: dict[Any, Any] = {}
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    first = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    anchor = placeholders[-1].next if placeholders else first
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is torch.ops.aten._assert_tensor_metadata.default or _is_implied(node, ranges):
            graph.erase_node(node)
        elif is_number(node):
            found = expression(node.meta["val"])
            if not found.free_symbols <= sources.keys():
                continue
            if found not in known:
                with graph.inserting_before(anchor):
                    known[found] = emit_size(graph, found, sources)
                if isinstance(known[found], Node):
                    known[found].meta["val"] = node.meta["val"]
            _replace_uses(node, known[found])
    graph.eliminate_dead_code(is_impure_node=_is_impure)
    graph.lint()


def limit_sizes_of_results(graph: Graph, ranges: dict[Any, Any]) -> None:
    """Limit sizes that depend on values by what is known of the operators that find them.

    PyTorch knows that ``nonzero`` finds at most as many rows as there are elements. For ``unique`` it knows
    no limit.

    Parameters
    ----------
    graph : torch.fx.Graph
        Not changed.
    ranges : dict
        Of symbol to range; changed in place.
    """
    for node in graph.nodes:
        if node.target not in _SIZE_OF_A_RESULT:
            continue
        most = _most_elements(node, ranges)
        for leaf in tree_leaves(node.meta["val"]):
            for size in leaf.shape if isinstance(leaf, torch.Tensor) else ():
                found = expression(size)
                if isinstance(found, int) or not found.is_Symbol or found not in ranges:
                    continue
                limits = ranges[found]
                if found.name.startswith("u") and most < limits.upper:
                    ranges[found] = ValueRanges(limits.lower, most)


def _replace_uses(node: Node, by: Any) -> None:
    if isinstance(by, Node):
        node.replace_all_uses_with(by)
        return
    for user in list(node.users):
        user.args = torch.fx.map_arg(user.args, lambda argument: by if argument is node else argument)
        user.kwargs = torch.fx.map_arg(user.kwargs, lambda argument: by if argument is node else argument)


def _is_impure(node: Node) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    if node.op != "call_function":
        return False
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        # Operators that take graphs may have effects inside.
        return isinstance(target, torch._ops.HigherOrderOperator)
    schema = target._schema
    return schema.is_mutable or not schema.returns or torch.Tag.nondeterministic_seeded in target.tags


def _is_implied(node: Node, ranges: Mapping[Any, Any]) -> bool:
    """Whether a node checks a size that cannot be otherwise."""
    if node.target is not torch.ops.aten._assert_scalar.default:
        return False
    condition = node.args[0]
    if not isinstance(condition, Node):
        return bool(condition)
    value = expression(condition.meta.get("val"))
    if value is True or (getattr(value, "is_Boolean", False) and str(value) == "True"):
        return True
    if value is None or isinstance(value, bool):
        return False
    compared = condition.args[0] if condition.op == "call_function" else None
    if not isinstance(compared, Node) or compared.target is not torch.ops.aten.sym_size.int:
        return False
    # The ranges of sizes that are known only at run time come from such checks: they imply nothing. What the
    # operator itself guarantees does.
    maker = compared.args[0]
    if isinstance(maker, Node) and maker.target is operator.getitem:
        maker = maker.args[0]
    if not isinstance(maker, Node) or maker.target not in _SIZE_OF_A_RESULT:
        return False
    limit = condition.args[1] if len(condition.args) == 2 else None
    if not isinstance(limit, int):
        return False
    if condition.target is operator.ge:
        return limit <= 0
    return condition.target is operator.le and limit >= _most_elements(maker, ranges)


def _most_elements(maker: Node, ranges: Mapping[Any, Any]) -> int:
    product = 1
    for size in maker.all_input_nodes[0].meta["val"].shape:
        product *= bounds(size, ranges)[1]
    return product
