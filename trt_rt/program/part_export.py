"""Makes the exported program of a part from the values that its graph already has, without tracing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_structure
from torch.utils._sympy.value_ranges import ValueRanges

from trt_rt.compiled.size_bounds import expression
from trt_rt.compiler.onnx_nodes import as_onnx_node, is_first_result
from trt_rt.compiler.onnx_registry import decompositions_for_onnx, has_onnx_function
from trt_rt.program.size_ranges import SizeRanges

__all__ = ["exported_for_onnx"]

_OF_THE_WHOLE = {"": ("", "torch.nn.Module")}
"""The ``nn_module_stack`` of nodes that belong to no submodule; torch.onnx warns where there is none."""


class _OnlyTracingTells(Exception):
    """Something about the part is not known from its graph."""


def exported_for_onnx(module: GraphModule, ranges: SizeRanges) -> ExportedProgram | None:
    """Return the exported program of a part, with operators that all have ONNX functions.

    Sizes are symbols of the whole program. An operator without ONNX function is decomposed alone.

    Parameters
    ----------
    module : torch.fx.GraphModule
        The part. Its placeholders are tensors, its weights ``get_attr`` nodes, and it writes to nothing.
    ranges : SizeRanges
        Of the whole program.

    Returns
    -------
    ExportedProgram or None
        None where only tracing tells: a size of an input is an expression or depends on values, an operator
        cannot be decomposed alone, or this PyTorch makes exported programs in another way.
    """
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    try:
        limits = {symbol: ranges.limits(symbol) for symbol in _symbols(placeholders)}
        return _Copy(module, placeholders).exported(limits)
    except (_OnlyTracingTells, ImportError, AttributeError, TypeError):
        return None


def _symbols(placeholders: Sequence[Node]) -> list[Any]:
    """The symbols in the shapes of inputs, each of which must be a size."""
    found: dict[Any, None] = {}
    for node in placeholders:
        for size in node.meta["val"].shape:
            wanted = expression(size)
            if isinstance(wanted, int):
                continue
            # PyTorch calls sizes that depend on values u0, u1, ...
            if not wanted.is_Symbol or not wanted.name.startswith("s"):
                raise _OnlyTracingTells
            found.setdefault(wanted)
    return list(found)


class _Copy:
    """A graph of a part in the form of an exported program's: weights are placeholders."""

    def __init__(self, module: GraphModule, placeholders: Sequence[Node]) -> None:
        self._module = module
        self._placeholders = placeholders
        self._graph = Graph()
        self._copies: dict[Node, Node] = {}
        self._weights: dict[str, str] = {}
        self._onnx_nodes: set[Node] = set()
        self._add_weights()
        for node in placeholders:
            self._copies[node] = self._graph.placeholder(node.name)
            self._copies[node].meta = dict(node.meta)
        for node in module.graph.nodes:
            if node.op == "call_function":
                self._copies[node] = self._operator(node)
        results: Any = module.graph.output_node().args[0]
        self._outputs = tuple(self._copies[node] for node in results)
        self._graph.output(self._outputs)

    def _add_weights(self) -> None:
        taken = {node.name for node in self._placeholders}
        first: dict[str, Node] = {}
        for node in self._module.graph.nodes:
            if node.op != "get_attr":
                continue
            path = str(node.target)
            if path not in first:
                name = f"weight_{len(first)}"
                while name in taken:
                    name = f"_{name}"
                first[path] = self._graph.placeholder(name)
                first[path].meta = dict(node.meta)
                self._weights[path] = name
            self._copies[node] = first[path]

    def _operator(self, node: Node) -> Node:
        source: Any = node.args[0] if is_first_result(node) else None
        if source in self._onnx_nodes:
            return self._copies[source]
        if (onnx_node := as_onnx_node(self._graph, node, self._copies)) is not None:
            onnx_node.meta.setdefault("nn_module_stack", _OF_THE_WHOLE)
            self._onnx_nodes.add(node)
            return onnx_node
        if not has_onnx_function(node.target):
            return self._decomposed(node)
        copy = self._graph.node_copy(node, self._copies.__getitem__)
        if "val" not in copy.meta:
            copy.meta["val"] = _size(copy)
        copy.meta.setdefault("nn_module_stack", _OF_THE_WHOLE)
        return copy

    def _decomposed(self, node: Node) -> Node:
        """Put the operators in that an operator consists of, with what is known of where it comes from."""
        target: Any = node.target
        inner, arguments = _decomposition(target, node)
        values = {
            placeholder: self._copies[argument]
            for placeholder, argument in zip(
                (one for one in inner.graph.nodes if one.op == "placeholder"), arguments, strict=True
            )
        }
        for one in inner.graph.nodes:
            if one.op == "call_function" and has_onnx_function(one.target):
                values[one] = self._graph.node_copy(one, values.__getitem__)
                values[one].meta = {**node.meta, "val": one.meta["val"]}
                values[one].meta.setdefault("nn_module_stack", _OF_THE_WHOLE)
            elif one.op not in ("placeholder", "output"):
                raise _OnlyTracingTells
        (result,) = inner.graph.output_node().args
        if not isinstance(result, Node):
            raise _OnlyTracingTells
        return values[result]

    def exported(self, limits: dict[Any, tuple[int, int]]) -> ExportedProgram:
        """Return the program, without example inputs: those of all parts together could be large."""
        from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
        from torch.export.graph_signature import (
            ExportGraphSignature,
            InputKind,
            InputSpec,
            OutputKind,
            OutputSpec,
            TensorArgument,
        )

        state = {path: _attribute(self._module, path) for path in self._weights}
        weights = [
            InputSpec(InputKind.BUFFER, TensorArgument(name), path, persistent=True)
            if not isinstance(state[path], torch.nn.Parameter)
            else InputSpec(InputKind.PARAMETER, TensorArgument(name), path)
            for path, name in self._weights.items()
        ]
        inputs = [TensorArgument(node.name) for node in self._placeholders]
        outputs = [TensorArgument(node.name) for node in self._outputs]
        signature = ExportGraphSignature(
            [*weights, *(InputSpec(InputKind.USER_INPUT, argument, None) for argument in inputs)],
            [OutputSpec(OutputKind.USER_OUTPUT, argument, None) for argument in outputs],
        )
        call = ModuleCallSignature(
            inputs=list(inputs),
            outputs=list(outputs),
            in_spec=tree_structure(((0,) * len(inputs), {})),
            out_spec=tree_structure((0,) * len(outputs)),
        )
        return ExportedProgram(
            torch.nn.Module(),
            self._graph,
            signature,
            state,
            {symbol: ValueRanges(low, high) for symbol, (low, high) in limits.items()},
            [ModuleCallEntry("", call)],
            constants={},
        )


def _decomposition(target: Any, node: Node) -> tuple[GraphModule, list[Node]]:
    """The operators that an operator consists of, on the values that it has in its graph."""
    arguments = node.all_input_nodes
    table = decompositions_for_onnx()

    def run(*values: Any) -> Any:
        given = dict(zip(arguments, values, strict=True))
        args = torch.fx.map_arg(node.args, given.__getitem__)
        kwargs = torch.fx.map_arg(node.kwargs, given.__getitem__)
        return target(*args, **kwargs)

    values = [one.meta["val"] for one in arguments]
    try:
        with torch.no_grad(), _as_the_program_was_traced(values):
            traced = make_fx(run, decomposition_table=table)(*values)
    except Exception as error:  # whatever an operator does on values that have no memory
        raise _OnlyTracingTells from error
    return traced, arguments


@contextmanager
def _as_the_program_was_traced(values: Sequence[Any]) -> Iterator[None]:
    """Give new constants the mode of the values, as torch.onnx takes only one, and keep sizes as they are.

    A decomposition that needs the number behind a size would make that size constant in the whole program.
    """
    mode = detect_fake_mode(values)
    if mode is None:
        yield
        return
    with mode, mode.shape_env.error_on_new_guards() if mode.shape_env else nullcontext():
        yield


def _attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    owner, _, attribute = path.rpartition(".")
    tensor = getattr(module.get_submodule(owner), attribute)
    assert isinstance(tensor, torch.Tensor)
    return tensor


def _size(node: Node) -> Any:
    """The value of a node that reads a size, or computes with sizes."""
    args: Any = torch.fx.map_arg(node.args, lambda argument: argument.meta["val"])
    if node.target is torch.ops.aten.sym_size.int:
        tensor, axis = args
        return tensor.shape[axis]
    assert callable(node.target)
    return node.target(*args)
