"""Computes in float32 what a model computes in float64, where the user asks for that."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from trt_rt.errors import CompileError

__all__ = ["CASTS_FOR_TRUNCATION", "truncate_doubles"]

CASTS_FOR_TRUNCATION = "trt_rt_truncation"
"""Key in ``meta`` of the casts that are added where values enter and leave the program."""

_NARROWER = {torch.float64: torch.float32, torch.complex128: torch.complex64}

_READS_BITS = torch.ops.aten.view.dtype


def truncate_doubles(module: GraphModule) -> None:
    """Rewrite a functional graph to compute in float32 and complex64 instead of float64 and complex128.

    Arguments and results keep their dtypes: casts are added where they enter and leave the graph. So do
    tensors that the graph writes to. A weight that is only read becomes float32 once, here.

    Parameters
    ----------
    module : torch.fx.GraphModule
        Changed in place. Its weights are its own attributes, which may be replaced.

    Raises
    ------
    CompileError
        An operator reads the bits of a float64 tensor.
    """
    graph = module.graph
    output = graph.output_node()
    first = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    written = {node.args[0] for node in graph.nodes if _writes(node)}
    weights = [node for node in graph.nodes if node.op == "get_attr" and _wide_dtype(node) is not None]
    stay_wide = {node.target for node in weights if node in written or output in node.users}
    kept: dict[Node, torch.dtype] = {}
    for node in graph.nodes:
        dtype = _wide_dtype(node)
        if dtype is None or node.op not in ("placeholder", "get_attr"):
            continue
        if node.op == "placeholder" or node.target in stay_wide:
            kept[node] = dtype
        else:
            _replace_weight(module, node)
    results = {
        node: dtype
        for node in output.all_input_nodes
        if node not in kept and (dtype := _wide_dtype(node)) is not None
    }
    _narrow_operators(module, set(kept))
    for node in kept:
        if any(user is not output and not _writes_to(user, node) for user in node.users):
            with graph.inserting_before(first):
                cast = _cast(module, node, _NARROWER[kept[node]])
            for user in list(node.users):
                if user is not output and user is not cast and not _writes_to(user, node):
                    user.replace_input_with(node, cast)
    for node, dtype in results.items():
        with graph.inserting_before(output):
            cast = _cast(module, node, dtype)
        output.replace_input_with(node, cast)
    graph.lint()
    module.recompile()


def _narrow_operators(module: GraphModule, kept: set[Node]) -> None:
    """Make every operator, in graphs that operators take too, compute in the narrower dtype."""
    for node in module.graph.nodes:
        if node.target is _READS_BITS and _wide_dtype(node.args[0]) is not None:
            raise CompileError(
                f"truncate_double=True, and {node.target} reads the bits of a float64 tensor "
                f"({node.args[0]}), which would be others. Leave out truncate_double"
            )
    for node in module.graph.nodes:
        if node.op == "get_attr":
            branch = getattr(module, str(node.target), None)
            if isinstance(branch, GraphModule):
                _narrow_operators(branch, set())
                branch.recompile()
        elif node.op == "call_function" and not _writes(node):
            _narrow_arguments(node)
        if node not in kept and not _writes(node) and "val" in node.meta:
            node.meta["val"] = tree_map(_narrowed, node.meta["val"])


def _narrow_arguments(node: Node) -> None:
    node.args = torch.fx.node.map_aggregate(node.args, _narrower_dtype)
    node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _narrower_dtype)
    # Where no argument names the dtype, it may be the default dtype, which need not be float32.
    schema = getattr(node.target, "_schema", None)
    dtype = _wide_dtype(node)
    if schema is not None and dtype is not None and node.kwargs.get("dtype") is None:
        position = next((n for n, given in enumerate(schema.arguments) if given.name == "dtype"), None)
        if position is not None and position >= len(node.args):
            node.kwargs = {**node.kwargs, "dtype": _NARROWER[dtype]}


def _narrower_dtype(argument: Any) -> Any:
    return _NARROWER.get(argument, argument) if isinstance(argument, torch.dtype) else argument


def _narrowed(value: Any) -> Any:
    wide = isinstance(value, torch.Tensor) and value.dtype in _NARROWER
    return value.to(_NARROWER[value.dtype]) if wide else value


def _wide_dtype(node: Any) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value.dtype if isinstance(value, torch.Tensor) and value.dtype in _NARROWER else None


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _writes_to(user: Node, node: Node) -> bool:
    return _writes(user) and user.args[0] is node


def _replace_weight(module: GraphModule, node: Node) -> None:
    owner_name, _, attribute = str(node.target).rpartition(".")
    owner = module.get_submodule(owner_name)
    value = getattr(owner, attribute)
    if value.dtype in _NARROWER:  # a second node of the same weight finds it done
        narrow = value.detach().to(_NARROWER[value.dtype])
        if isinstance(value, torch.nn.Parameter):
            narrow = torch.nn.Parameter(narrow, requires_grad=False)
        setattr(owner, attribute, narrow)


def _cast(module: GraphModule, node: Node, dtype: torch.dtype) -> Node:
    cast = module.graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    cast.meta["val"] = node.meta["val"].to(dtype)
    cast.meta[CASTS_FOR_TRUNCATION] = True
    return cast
