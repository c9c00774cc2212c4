"""The answer of TensorRT's ONNX parser about each operator alone.

The parser stops at the first node that it does not support. So each node is put into a model of its own, with
inputs of the types that it has in the whole model, and with its constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from trt_rt._core.silent_log import silent_log
from trt_rt.backend import Backend
from trt_rt.compiled.size_bounds import expression
from trt_rt.compiler.onnx_registry import onnx_registry
from trt_rt.program.part import ORIGIN

__all__ = ["converts_to_onnx", "node_of_conversion_error", "refused_by_parser"]

_FX_NODE = "pkg.torch.onnx.fx_node"
_AVERAGE_POOLS = frozenset({torch.ops.aten.avg_pool2d.default, torch.ops.aten.avg_pool3d.default})
_ADAPTIVE_POOLS = frozenset(
    {
        torch.ops.aten.adaptive_avg_pool1d.default,
        torch.ops.aten.adaptive_avg_pool2d.default,
        torch.ops.aten.adaptive_avg_pool3d.default,
        torch.ops.aten.adaptive_max_pool1d.default,
        torch.ops.aten.adaptive_max_pool2d.default,
        torch.ops.aten.adaptive_max_pool3d.default,
    }
)
_SCATTERS = frozenset(
    {torch.ops.aten.scatter.src, torch.ops.aten.scatter_add.default, torch.ops.aten.scatter_reduce.two}
)
_LARGE_BYTES = 1 << 20
"""Constants of at least this size are inputs where a node is asked about: the question needs no values."""


def converts_to_onnx(node: Node) -> str | None:
    """Return why torch.onnx cannot express an operator; None if it may."""
    registry = onnx_registry()
    target = node.target
    if registry is None or not isinstance(target, torch._ops.OpOverload):
        return None
    if reason := _expressed_wrongly(node):
        return reason
    if registry.is_registered(target) or target in torch._decomp.decomposition_table:
        return None
    if target._can_decompose() or target in torch.export.default_decompositions():
        return None
    return "torch.onnx has no ONNX function for it"


def _expressed_wrongly(node: Node) -> str | None:
    """Return why the ONNX nodes that torch.onnx makes of an operator compute something else."""
    if node.target is torch.ops.aten.scatter_reduce.two and node.args[4] == "mean":
        return "ONNX has no mean of the values that it scatters"
    if node.target in _AVERAGE_POOLS and len(node.args) > 6 and node.args[6] is not None:
        return "ONNX has no average with a divisor of its own"
    if node.target in _ADAPTIVE_POOLS:
        x, wanted = node.args[:2]
        assert isinstance(x, Node)
        assert isinstance(wanted, Sequence)
        varies = any(type(size) is not int for size in x.meta["val"].shape[-len(wanted) :])
        if varies and any(size != 1 for size in wanted):
            return "ONNX pools to a given size only where it starts from a size that does not vary"
    if node.target in _SCATTERS:
        index, source = node.args[2:4]
        assert isinstance(index, Node)
        assert isinstance(source, Node)
        if _sizes(index) != _sizes(source):
            return "ONNX scatters only as many values as there are indices"
    return None


def _sizes(node: Node) -> list[Any]:
    """The sizes of a tensor, as what can be compared without making one constant."""
    return [expression(size) for size in node.meta["val"].shape]


def node_of_conversion_error(error: BaseException, names: Mapping[str, str]) -> str | None:
    """Return the origin of the node that torch.onnx failed at.

    Parameters
    ----------
    error : BaseException
        What the conversion raised; its causes are looked through.
    names : mapping
        Of a node's name in the exported part to its origin.
    """
    cause: BaseException | None = error
    while cause is not None:
        match = re.search(r"translating node %(\w+) :", str(cause))
        if match and match[1] in names:
            return names[match[1]]
        cause = cause.__cause__
    return None


def refused_by_parser(onnx_program: Any, backend: Backend) -> dict[str, str]:
    """Ask the parser about each node of a converted part.

    Parameters
    ----------
    onnx_program : torch.onnx.ONNXProgram
        The part. Its weights are not copied.
    backend : Backend
        With an ONNX parser.

    Returns
    -------
    dict
        The reason for each refused operator, by its name in the program's graph.
    """
    model = onnx_program.model
    origins = {
        node.name: (node.meta.get("custom") or {}).get(ORIGIN)
        for node in onnx_program.exported_program.graph.nodes
    }
    refused: dict[str, str] = {}
    answers: dict[bytes, str | None] = {}
    ask = _Question(backend, model)
    with silent_log("trt_rt.tensorrt"):  # the parser's answer to a question is no error
        for node in model.graph:
            question = ask.model_of(node)
            if question not in answers:
                answers[question] = ask(question) or None
            reason = answers[question]
            if reason is not None:
                origin = _origin(node, origins)
                refused.setdefault(origin, f"{backend.name} refuses ONNX {node.op_type}: {reason}")
    return refused


def _origin(node: Any, origins: Mapping[str, str | None]) -> str:
    """Follow an ONNX node to the next one that names a node of the program; "" if none does."""
    waiting, seen = [node], {id(node)}
    while waiting:
        current = waiting.pop(0)
        match = re.match(r"%(\w+)", current.metadata_props.get(_FX_NODE, ""))
        origin = origins.get(match[1]) if match else None
        if origin is not None:
            return origin
        for output in current.outputs:
            for user in output.consumers():
                if id(user) not in seen:
                    seen.add(id(user))
                    waiting.append(user)
    return ""


class _Question:
    """Makes a model of each node, and asks the parser whether it supports that."""

    def __init__(self, backend: Backend, model: Any) -> None:
        self._backend = backend
        self._model = model
        api = backend.api
        self._flags = 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self._builder = api.Builder(backend.logger)

    def model_of(self, node: Any) -> bytes:
        """A serialized model that has one node."""
        import onnx
        import onnx_ir as ir

        proto = onnx.ModelProto(ir_version=self._model.ir_version)
        for domain, version in self._model.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        for function in self._model.functions.values():
            proto.functions.append(ir.serde.serialize_function(function))
        graph = proto.graph
        graph.name = "question"
        copy = graph.node.add()
        copy.CopyFrom(ir.serde.serialize_node(node))
        copy.ClearField("metadata_props")
        copy.ClearField("name")
        copy.ClearField("doc_string")
        for value in _values_read(node):
            constant = value.const_value
            if constant is not None and constant.nbytes < _LARGE_BYTES:
                tensor = graph.initializer.add()
                tensor.CopyFrom(ir.serde.serialize_tensor(constant))
                tensor.name = value.name
            else:
                graph.input.append(ir.serde.serialize_value(value))
        for output in node.outputs:
            if output.name:
                graph.output.append(ir.serde.serialize_value(output))
        question: bytes = proto.SerializeToString()
        return question

    def __call__(self, question: bytes) -> str:
        """Return the parser's reason; "" if it takes the node."""
        network = self._builder.create_network(self._flags)
        parser = self._backend.api.OnnxParser(network, self._backend.logger)
        if parser.parse(question):
            return ""
        errors = [parser.get_error(index).desc().strip() for index in range(parser.num_errors)]
        return "; ".join(dict.fromkeys(errors)).rstrip(". ") or "it gave no reason"


def _values_read(node: Any) -> Sequence[Any]:
    """Return the values that a node, or a graph inside it, reads from outside, each once."""
    found: dict[str, Any] = {}
    made: set[str] = set()
    waiting: list[Any] = [node]
    while waiting:
        current = waiting.pop()
        for value in current.inputs:
            if value is not None and value.name not in made:
                found.setdefault(value.name, value)
        for attribute in current.attributes.values():
            subgraph: Any = getattr(attribute, "value", None)
            if hasattr(subgraph, "initializers"):
                made.update(value.name for value in subgraph.inputs)
                for inner in subgraph:
                    made.update(output.name for output in inner.outputs)
                    waiting.append(inner)
    return [value for name, value in found.items() if name not in made]
