"""Operators that are called in the place of others, which compute the same."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

__all__ = ["rewrite_operators"]

_REPLACED = {
    # Strides in the graph are those of eager PyTorch; what an engine returns is contiguous.
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
    torch.ops.aten._unsafe_view.default: torch.ops.aten.reshape.default,
    # Second names, of which torch.onnx has no function.
    torch.ops.aten.__and__.Scalar: torch.ops.aten.bitwise_and.Scalar,
    torch.ops.aten.__and__.Tensor: torch.ops.aten.bitwise_and.Tensor,
    torch.ops.aten.__or__.Scalar: torch.ops.aten.bitwise_or.Scalar,
    torch.ops.aten.__or__.Tensor: torch.ops.aten.bitwise_or.Tensor,
    torch.ops.aten.__xor__.Scalar: torch.ops.aten.bitwise_xor.Scalar,
    torch.ops.aten.__xor__.Tensor: torch.ops.aten.bitwise_xor.Tensor,
}
"""Operators that are called instead of others, with the same arguments."""

_SOFTMAXES = frozenset({torch.ops.aten.softmax.int, torch.ops.aten.log_softmax.int})
_PRODUCTS: dict[Any, Any] = {
    torch.ops.aten.addmm.default: torch.ops.aten.mm.default,
    torch.ops.aten.baddbmm.default: torch.ops.aten.bmm.default,
}
"""Products that something is added to, and those that nothing is added to."""
_SQUEEZES = frozenset({torch.ops.aten.squeeze.dim, torch.ops.aten.squeeze.dims})


def rewrite_operators(graph: Graph) -> None:
    """Call other operators where torch.onnx has no function, or not the right one, for an operator.

    Parameters
    ----------
    graph : torch.fx.Graph
        Changed in place. Its operators are PyTorch's, with their values in ``meta["val"]``.
    """
    for node in list(graph.nodes):
        node.target = _REPLACED.get(node.target, node.target)
        if node.target in _SOFTMAXES:
            x, dim, *rest = node.args
            _cast_before(node, rest[0] if rest else node.kwargs.get("dtype"), (x, dim))
        elif node.target is torch.ops.aten.mean.dim:
            _cast_before(node, node.kwargs.get("dtype"), node.args)
        elif node.target in _SQUEEZES:
            _squeeze_only_ones(node)
        elif node.target in _PRODUCTS and node.kwargs.get("beta") == 0:
            _add_nothing(node)


def _cast_before(node: Node, dtype: Any, arguments: tuple[Any, ...]) -> None:
    """Convert to the `dtype` of an operator in front of it, as PyTorch does; torch.onnx does so after it."""
    x, *rest = arguments
    if dtype is None or x.meta["val"].dtype == dtype:
        return
    with node.graph.inserting_before(node):
        cast = node.graph.call_function(torch.ops.aten._to_copy.default, (x,), {"dtype": dtype})
    cast.meta = {**node.meta, "val": x.meta["val"].to(dtype)}
    node.args, node.kwargs = (cast, *rest), {}


def _add_nothing(node: Node) -> None:
    """Leave out what `beta=0` leaves out: it may be uninitialised, and in ONNX zero times NaN is NaN."""
    _, left, right = node.args
    alpha = node.kwargs.get("alpha", 1)
    product = _PRODUCTS[node.target]
    if alpha == 1:
        node.target, node.args, node.kwargs = product, (left, right), {}
        return
    with node.graph.inserting_before(node):
        multiplied = node.graph.call_function(product, (left, right))
    multiplied.meta = dict(node.meta)
    node.target, node.args, node.kwargs = torch.ops.aten.mul.Tensor, (multiplied, alpha), {}


def _squeeze_only_ones(node: Node) -> None:
    """Leave out the dimensions that a squeeze leaves: ONNX refuses to remove one that is not 1."""
    x, given = node.args
    assert isinstance(x, Node)
    shape = x.meta["val"].shape
    axes = [given] if isinstance(given, int) else list(given)  # type: ignore[arg-type]
    ones = [axis for axis in axes if shape and (type(shape[axis]) is not int or shape[axis] == 1)]
    if len(ones) == len(axes):
        return
    if ones:
        node.target, node.args = torch.ops.aten.squeeze.dims, (x, ones)
    else:
        node.target, node.args = torch.ops.aten.alias.default, (x,)
