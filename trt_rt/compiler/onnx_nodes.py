"""Operators that are a single node in ONNX, as that node.

PyTorch's ONNX functions give a convolution without bias a bias of zeros, which five nodes make, and a batch
norm its statistics, which nine nodes make. The optimizer removes these nodes again. In a network of
convolutions that is most of the time of an export.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

__all__ = ["as_onnx_node", "is_first_result"]

_CONVOLUTIONS = frozenset(
    {
        torch.ops.aten.conv1d.default,
        torch.ops.aten.conv2d.default,
        torch.ops.aten.conv3d.default,
        torch.ops.aten.convolution.default,
    }
)
_BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


def as_onnx_node(graph: Graph, node: Node, copies: Mapping[Node, Node]) -> Node | None:
    """Append the ONNX node that computes what a node of another graph computes.

    Parameters
    ----------
    graph : torch.fx.Graph
        Gets the node, as the operator of ``torch.onnx.ops.symbolic``.
    node : torch.fx.Node
        Of the other graph. Its ``meta["val"]`` is set.
    copies : mapping
        Of the other graph's nodes to those of `graph`.

    Returns
    -------
    torch.fx.Node or None
        Its value is the operator's result, or the first of several. None where the operator needs PyTorch's
        ONNX function: it is of another kind, or another of its results is used.
    """
    found = _convolution(node) or _batch_norm(node)
    if found is None:
        return None
    kind, inputs, attributes, value = found
    copy = _symbolic(graph, node.name, kind, tuple(copies[source] for source in inputs), attributes, value)
    if copy is not None:
        copy.meta = {**node.meta, "val": value}
    return copy


def is_first_result(node: Node) -> bool:
    """Whether a node picks the first result of an operator with several."""
    return node.target is operator.getitem and node.args[1:] == (0,)


_Found = tuple[str, tuple[Node, ...], dict[str, Any], torch.Tensor]
"""An ONNX operator, its inputs, its attributes, and the value of its result."""


def _convolution(node: Node) -> _Found | None:
    if node.target not in _CONVOLUTIONS:
        return None
    given = _arguments(node)
    x, weight = given["input"], given["weight"]
    rank = weight.meta["val"].ndim - 2
    lists = {name: given[name] for name in ("stride", "padding", "dilation")}
    if given["bias"] is not None or given.get("transposed") or x.meta["val"].ndim != rank + 2:
        return None
    # PyTorch takes one number for all dimensions; sizes that vary are nodes.
    if any(len(values) != rank or any(type(one) is not int for one in values) for values in lists.values()):
        return None
    kernel = weight.meta["val"].shape[2:]
    if any(type(size) is not int for size in kernel):
        return None
    attributes = {
        "strides": list(lists["stride"]),
        "pads": [*lists["padding"], *lists["padding"]],
        "group": given["groups"],
        "dilations": list(lists["dilation"]),
        "kernel_shape": list(kernel),
    }
    return "Conv", (x, weight), attributes, node.meta["val"]


def _batch_norm(node: Node) -> _Found | None:
    if node.target is not _BATCH_NORM or not all(map(is_first_result, node.users)):
        return None
    given = _arguments(node)
    inputs = tuple(given[name] for name in ("input", "weight", "bias", "running_mean", "running_var"))
    if any(source is None for source in inputs):
        return None
    # The momentum of ONNX has no effect here either.
    return "BatchNormalization", inputs, {"epsilon": given["eps"], "training_mode": 0}, node.meta["val"][0]


def _arguments(node: Node) -> dict[str, Any]:
    """The arguments of an operator, by the names of its schema."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    values = {argument.name: argument.default_value for argument in target._schema.arguments}
    values.update(zip(values, node.args, strict=False))
    values.update(node.kwargs)
    return values


def _symbolic(
    graph: Graph,
    name: str,
    kind: str,
    inputs: tuple[Node, ...],
    attributes: dict[str, Any],
    value: torch.Tensor,
) -> Node | None:
    """Append what a call of ``torch.onnx.ops.symbolic`` leaves in a graph; None where PyTorch has it not."""
    try:
        # PyTorch loads the packages of ONNX with these, which `import trt_rt` does not need.
        from torch.onnx.ops import _TORCH_DTYPE_TO_ONNX_DTYPE, _symbolic_impl

        dtype = _TORCH_DTYPE_TO_ONNX_DTYPE[value.dtype]
        encoded = vars(_symbolic_impl.EncodedAttrs.from_dict(attributes))
        target = torch.ops.onnx_symbolic._symbolic.default
    except (ImportError, AttributeError, KeyError):
        return None
    kwargs = {
        "shape": [size if type(size) is int else -1 for size in value.shape],
        **encoded,
        "metadata_props_keys": [],
        "metadata_props_values": [],
    }
    return graph.create_node("call_function", target, (inputs, kind, dtype), kwargs, name=name)
