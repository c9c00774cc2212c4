"""Makes a plan's graph from an exported network."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node as FxNode

from trt_rt._core.dtype_name import dtype_name
from trt_rt.errors import CompileError, PlanError
from trt_rt.reference.arguments import (
    PLACE_OF_ENGINE,
    PLACE_OF_HOST,
    PLACE_OF_OPERANDS,
    Place,
    Reference,
    encode_argument,
)
from trt_rt.reference.dtypes import DTYPES_BY_NAME
from trt_rt.reference.exporting import ExportedNetwork, describe
from trt_rt.reference.graph import Graph, Node
from trt_rt.reference.operators import Operator, operator_name, resolve
from trt_rt.reference.results import Result
from trt_rt.reference.symbolic_sizes import static_shape

__all__ = ["build_graph"]


def build_graph(network: ExportedNetwork, weight_numbers: dict[FxNode, int], weights: int) -> Graph:
    """Return the graph of a network.

    Parameters
    ----------
    network : ExportedNetwork
        The network.
    weight_numbers : dict
        For the placeholder of each weight, the number of the weight.
    weights : int
        Number of weights.

    Raises
    ------
    CompileError
        A layer calls a function that a plan may not call, or has an argument that a plan cannot hold.
    """
    values = {node: number for number, node in enumerate(network.inputs)}
    leaves = len(network.inputs) + weights
    values.update({node: len(network.inputs) + number for node, number in weight_numbers.items()})
    values.update({node: leaves + number for number, node in enumerate(network.layers)})
    places = _Places(network)
    return Graph(
        leaves=leaves,
        nodes=tuple(_build_node(layer, values, places) for layer in network.layers),
        outputs=tuple(values[node] for node in network.outputs),
    )


class _Places:
    """Maps the devices of an exported network to the places of a plan."""

    def __init__(self, network: ExportedNetwork) -> None:
        tensors = [*network.examples, *(weight.value for weight in network.weights)]
        kinds = {tensor.device.type for tensor in tensors}
        if not kinds <= {"cpu", "cuda"}:
            raise CompileError(f"the network has tensors on {sorted(kinds)}: only CPU and CUDA are known")
        self._on_cuda = "cuda" in kinds

    def __call__(self, device: torch.device) -> Place:
        if device.type == "cuda":
            return PLACE_OF_ENGINE
        if device.type != "cpu":
            raise TypeError(f"a plan cannot hold the device {device}")
        return PLACE_OF_HOST if self._on_cuda else PLACE_OF_OPERANDS


def _build_node(layer: FxNode, values: dict[FxNode, int], places: _Places) -> Node:
    name = operator_name(layer.target)
    if name is None:
        raise CompileError(f"layer {describe(layer)}: a plan cannot hold such a call")
    try:
        found = resolve(name)
        node = Node(
            name=layer.name,
            operator=found,
            args=tuple(_convert(argument, values, places) for argument in layer.args),
            kwargs={
                keyword: _convert(argument, values, places)
                for keyword, argument in _keywords(layer, found).items()
            },
            result=_result(layer),
            data_dependent=_depends_on_data(layer),
        )
        for argument in (*node.args, *node.kwargs.values()):
            encode_argument(argument)
        found.check_arguments(node.args, node.kwargs)
    except (PlanError, TypeError, ValueError) as error:
        raise CompileError(f"layer {describe(layer)}: {error}") from error
    return node


def _result(layer: FxNode) -> Result | None:
    """Return the declared result of a layer; None for a number, for no result, and for several results."""
    value = layer.meta.get("val")
    if not isinstance(value, torch.Tensor) or dtype_name(value.dtype) not in DTYPES_BY_NAME:
        return None
    return Result(value.dtype, static_shape(value.shape))


def _depends_on_data(layer: FxNode) -> bool:
    """Return whether the shape of a layer's result, or a number that it returns, depends on data.

    The sizes that export could not determine are no guide: where the network checks that such a size is a
    certain number, export puts the number in its place.
    """
    if layer.meta.get("unbacked_bindings"):
        return True
    if not isinstance(layer.target, torch._ops.OpOverload):
        return False
    if layer.target is torch.ops.aten.index.Tensor:
        # It counts elements only where an index is a mask.
        indices = [node.meta["val"] for node in layer.all_input_nodes[1:]]
        return any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    if layer.target is torch.ops.aten.one_hot.default:
        return layer.args[1:] in ((), (-1,))
    if layer.target is torch.ops.aten.repeat_interleave.Tensor:
        return layer.kwargs.get("output_size") is None
    tags = layer.target.tags
    return torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags


def _keywords(layer: FxNode, found: Operator) -> dict[str, Any]:
    """Return the keyword arguments, with every default made explicit that depends on the running process."""
    # Pinned memory is a matter of speed, and impossible without CUDA.
    keywords = {name: value for name, value in layer.kwargs.items() if name != "pin_memory"}
    result = layer.meta.get("val")
    reads_tensors = any(isinstance(node.meta.get("val"), torch.Tensor) for node in layer.all_input_nodes)
    if isinstance(result, torch.Tensor) and not reads_tensors:
        for name, value in (("dtype", result.dtype), ("device", result.device)):
            if found.has_argument(name) and keywords.get(name) is None:
                keywords[name] = value
    return keywords


def _convert(argument: Any, values: dict[FxNode, int], places: _Places) -> Any:
    if isinstance(argument, FxNode):
        return Reference(values[argument])
    if isinstance(argument, (list, tuple)):
        return [_convert(element, values, places) for element in argument]
    if isinstance(argument, torch.device):
        return places(argument)
    return argument
