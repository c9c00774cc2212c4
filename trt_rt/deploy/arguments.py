"""Makes constants of a program its first arguments, for AOTInductor."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    TensorArgument,
)
from torch.utils._pytree import tree_structure, tree_unflatten

__all__ = ["constants_as_arguments"]


def constants_as_arguments(
    exported: ExportedProgram, plans: Collection[str]
) -> tuple[ExportedProgram, dict[str, torch.Tensor]]:
    """Make the constants that AOTInductor cannot hold the first arguments of a program.

    These are the plans of engines, and in a program for CUDA every constant on the CPU: before PyTorch 2.13,
    AOTInductor takes constants on the program's device only.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        The program. It is not changed.
    plans : collection of str
        The names of the constants that are plans.

    Returns
    -------
    ExportedProgram
        The same program with more arguments, and with example inputs.
    dict of str to torch.Tensor
        The constants that it takes as arguments, in their order.
    """
    values: dict[str, Any] = {**exported.constants, **exported.state_dict}
    written = {spec.target for spec in exported.graph_signature.output_specs}
    for_cuda = any(
        isinstance(value := node.meta.get("val"), torch.Tensor) and value.is_cuda
        for node in exported.graph.nodes
    )

    def becomes_argument(spec: InputSpec) -> bool:
        value = values.get(spec.target) if spec.target is not None else None
        if not isinstance(value, torch.Tensor) or spec.target in written:
            return False
        return spec.target in plans or (for_cuda and value.is_cpu)

    graph = copy.deepcopy(exported.graph)
    placeholders = graph.find_nodes(op="placeholder")
    pairs = list(zip(exported.graph_signature.input_specs, placeholders, strict=True))
    moved = [pair for pair in pairs if becomes_argument(pair[0])]
    kept = [pair for pair in pairs if not becomes_argument(pair[0])]
    first = next((i for i, (spec, _) in enumerate(kept) if spec.kind == InputKind.USER_INPUT), len(kept))
    ordered = [*kept[:first], *moved, *kept[first:]]
    for (_, node), (_, following) in zip(reversed(ordered[:-1]), reversed(ordered[1:]), strict=True):
        following.prepend(node)
    specs = [
        InputSpec(InputKind.USER_INPUT, spec.arg, None) if becomes_argument(spec) else spec
        for spec, _ in ordered
    ]
    names = [str(spec.target) for spec, _ in moved]
    arguments = {name: values[name] for name in names}

    args, kwargs = _example_inputs(exported) if exported.example_inputs is None else exported.example_inputs
    call = copy.copy(exported.module_call_graph[0])
    assert call.signature is not None
    call.signature = copy.copy(call.signature)
    call.signature.in_spec = _with_arguments(call.signature.in_spec, len(names))
    call.signature.inputs = [*(_tensor_argument(spec) for spec, _ in moved), *call.signature.inputs]
    call.signature.forward_arg_names = None
    program = ExportedProgram(
        root=exported.graph_module,
        graph=graph,
        graph_signature=ExportGraphSignature(specs, list(exported.graph_signature.output_specs)),
        state_dict=_without(exported.state_dict, names),
        range_constraints=dict(exported.range_constraints),
        module_call_graph=[call],
        example_inputs=((*arguments.values(), *args), kwargs),
        constants=_without(exported.constants, names),
        verifiers=exported.verifiers,
    )
    return program, arguments


def _tensor_argument(spec: InputSpec) -> TensorArgument:
    return TensorArgument(spec.arg.name)


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _with_arguments(in_spec: Any, count: int) -> Any:
    """Return the nesting of (args, kwargs) with `count` more tensors before the others."""
    args, kwargs = tree_unflatten([0] * in_spec.num_leaves, in_spec)
    return tree_structure(((*(0,) * count, *args), kwargs))


def _example_inputs(exported: ExportedProgram) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments of sizes that the program allows."""
    sizes = {
        symbol: int(min(max(int(limits.lower), 2), limits.upper))
        for symbol, limits in exported.range_constraints.items()
    }
    placeholders = {node.name: node for node in exported.graph.find_nodes(op="placeholder")}
    flat: list[Any] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, ConstantArgument):
            flat.append(spec.arg.value)
            continue
        value = placeholders[spec.arg.name].meta["val"]
        if isinstance(value, torch.Tensor):
            shape = [_number(size, sizes) for size in value.shape]
            flat.append(torch.zeros(shape, dtype=value.dtype, device=value.device))
        else:
            flat.append(_number(value, sizes))
    args, kwargs = tree_unflatten(flat, exported.call_spec.in_spec)
    return args, kwargs


def _number(size: Any, sizes: Mapping[Any, int]) -> int:
    return size if isinstance(size, int) else int(size.node.expr.subs(sizes))
