"""Example tensors for torch.export, which takes a tensor that is given as two inputs for one input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["mixed_up_inputs", "separate_examples"]


def separate_examples(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None, dynamic_shapes: Any
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Return an example call in which no two tensors share memory with each other or with the module.

    torch.export tells tensors apart by identity: of a tensor that is given as two inputs, or is also a buffer
    of the module, it uses one input for both. Memory that is shared, and written to, it cannot export.

    Parameters
    ----------
    module : torch.nn.Module
        The module to export.
    args, kwargs : sequence, mapping
        The example call.
    dynamic_shapes
        As torch.export takes it.

    Returns
    -------
    args, kwargs, dynamic_shapes
        The call, with copies of the tensors whose memory an earlier tensor has too. Shapes that belonged to
        tensors belong to arguments now.
    """
    given = tuple(args), dict(kwargs or {})
    if isinstance(dynamic_shapes, ShapesCollection):  # it knows the tensors by identity, too
        dynamic_shapes = dynamic_shapes.dynamic_shapes(module, *given)
    seen = {_memory(tensor) for tensor in (*module.parameters(), *module.buffers())}

    def separated(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        memory = _memory(leaf)
        if memory not in seen:
            seen.add(memory)
            return leaf
        copy = leaf.detach().clone().requires_grad_(leaf.requires_grad)
        copy.__dict__.update(leaf.__dict__)  # the marks of torch._dynamo.mark_dynamic
        return copy

    own_args, own_kwargs = tree_map(separated, given)
    return own_args, own_kwargs, dynamic_shapes


def mixed_up_inputs(program: ExportedProgram) -> str | None:
    """Return what is wrong with a program that was exported with one tensor as two inputs; None if nothing.

    Two inputs have the same example tensor, and the program reads at most one of them.
    """
    if program.example_inputs is None:
        return None
    unused = {node.name for node in program.graph.nodes if node.op == "placeholder" and not node.users}
    specs = program.graph_signature.input_specs
    names = [spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT]
    first: dict[int, str] = {}
    for name, leaf in zip(names, tree_leaves(program.example_inputs), strict=False):
        if not isinstance(leaf, torch.Tensor):
            continue
        other = first.setdefault(id(leaf), name)
        if other != name and not unused.isdisjoint((name, other)):
            return (
                f"the program was exported with one tensor as its inputs {other!r} and {name!r}, and "
                "torch.export then takes one of them for both: export it again, with a tensor of its own "
                "(tensor.clone()) for each input"
            )
    return None


def _memory(tensor: torch.Tensor) -> int:
    """Return a number that tensors in the same memory have in common."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors and some subclasses have no storage
        return id(tensor)
