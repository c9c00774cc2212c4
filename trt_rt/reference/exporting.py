"""Exports a module to a functional graph, and sorts out the parts of that graph."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    OutputKind,
    TensorArgument,
)
from torch.fx import Node as FxNode

from trt_rt.errors import CompileError
from trt_rt.reference.example_tensors import mixed_up_inputs, separate_examples

__all__ = ["ExportedNetwork", "NamedWeight", "describe", "export_network"]


@dataclass(frozen=True)
class NamedWeight:
    """A parameter, buffer or constant.

    Attributes
    ----------
    node : torch.fx.Node
        Its placeholder.
    value : torch.Tensor
        Its value.
    key : str or None
        Its key in the module's state dict; None if it is not there.
    """

    node: FxNode
    value: torch.Tensor
    key: str | None


@dataclass(frozen=True)
class ExportedNetwork:
    """A network as torch.export returns it.

    Attributes
    ----------
    inputs : list of torch.fx.Node
        Placeholders of the user's tensors, in their order.
    examples : list of torch.Tensor
        Their example values.
    weights : list of NamedWeight
        Parameters, buffers and constants that layers read.
    layers : list of torch.fx.Node
        The calls, in order.
    outputs : list of torch.fx.Node
        The values that the user's module returns, followed by the new values of inputs that it changes.
    returned : int
        Number of outputs that the module returns.
    mutated : dict
        For an output that is the new value of an input, by position: the input's position.
    ranges : dict
        For each sympy symbol, the range of sizes that export found.
    """

    inputs: list[FxNode]
    examples: list[torch.Tensor]
    weights: list[NamedWeight]
    layers: list[FxNode]
    outputs: list[FxNode]
    returned: int
    mutated: dict[int, int]
    ranges: Mapping[Any, Any]


def export_network(
    module: torch.nn.Module | ExportedProgram,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> ExportedNetwork:
    """Export a module, or take an exported program, and replace operators that change their operands.

    Raises
    ------
    CompileError
        It cannot be exported, changes a buffer, or takes or returns something that is no tensor.
    """
    with warnings.catch_warnings(), torch.no_grad():
        # torch.export warns about its own use of deprecated parts of PyTorch.
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(torch|copyreg)(\..*)?")
        # PyTorch's own recurrent layers assign this list, whose tensors are parameters.
        warnings.filterwarnings("ignore", message=r"The tensor attributes? self\.(.*\.)?_flat_weights")
        if isinstance(module, ExportedProgram):
            if mixed_up := mixed_up_inputs(module):
                raise CompileError(mixed_up)
            program = module
        else:
            program = _export(module, args, kwargs, dynamic_shapes)
        try:
            # The empty table decomposes no operator: engines compute with the operators that the module
            # calls. The call only replaces operators that change a tensor by ones that return a new one.
            program = program.run_decompositions({})
        except Exception as error:
            raise CompileError(f"torch.export cannot make the network functional: {error}") from error
    if args is None:
        if program.example_inputs is None:
            raise CompileError("arg_inputs is needed: the exported program has no example inputs")
        args, kwargs = program.example_inputs
    return _network(program, args, kwargs or {})


def describe(node: FxNode) -> str:
    """Name a node for an error message, with the source line where export kept it."""
    place = ""
    for line in reversed((node.meta.get("stack_trace") or "").splitlines()):
        if line.strip().startswith("File ") and not line.strip().startswith('File "<'):
            place = f", from {line.strip()}"
            break
    return f"{node.name!r} ({node.target}{place})"


def _export(
    module: torch.nn.Module, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, dynamic_shapes: Any
) -> ExportedProgram:
    if args is None:
        raise CompileError("arg_inputs is needed to export a module")
    try:
        args, kwargs, dynamic_shapes = separate_examples(module, args, kwargs, dynamic_shapes)
        return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise CompileError(f"torch.export cannot export {type(module).__name__}: {error}") from error


def _network(program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ExportedNetwork:
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    flat = torch.utils._pytree.tree_leaves((tuple(args), dict(kwargs)))
    user_specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    if len(flat) != len(user_specs):
        raise CompileError(f"the network takes {len(user_specs)} inputs and arg_inputs has {len(flat)}")
    inputs, examples = [], []
    for spec, example in zip(user_specs, flat, strict=True):
        if isinstance(spec.arg, TensorArgument) and isinstance(example, torch.Tensor):
            inputs.append(placeholders[spec.arg.name])
            examples.append(example)
        elif not isinstance(spec.arg, ConstantArgument):
            raise CompileError(f"input {spec.arg.name!r} is no tensor: make it one, or a constant")
    outputs, returned, mutated = _outputs(program, placeholders, inputs)
    return ExportedNetwork(
        inputs=inputs,
        examples=examples,
        weights=_weights(program, placeholders),
        layers=_layers(program),
        outputs=outputs,
        returned=returned,
        mutated=mutated,
        ranges=program.range_constraints,
    )


def _weights(program: ExportedProgram, placeholders: Mapping[str, FxNode]) -> list[NamedWeight]:
    weights = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            raise CompileError(f"input {spec.arg} of kind {spec.kind.name} cannot be part of a plan")
        node = placeholders[spec.arg.name]
        if not node.users:
            continue
        stored = program.constants if spec.target in program.constants else program.state_dict
        value = stored[str(spec.target)]
        if value.layout is not torch.strided:
            raise CompileError(f"weight {spec.target!r} has layout {value.layout}: make it dense")
        # Buffers that are not persistent are constants too, and in no state dict.
        key = str(spec.target) if stored is program.state_dict else None
        weights.append(NamedWeight(node, value.detach(), key))
    return weights


def _layers(program: ExportedProgram) -> list[FxNode]:
    layers = []
    for node in program.graph.nodes:
        if node.op in ("get_attr", "call_module", "call_method"):
            user = next(iter(node.users), node)
            raise CompileError(f"layer {describe(user)} holds another graph, which a plan cannot")
        # It checks types and devices, which are fixed in the exported network.
        if node.op == "call_function" and node.target is not torch.ops.aten._assert_tensor_metadata.default:
            layers.append(node)
    return layers


def _outputs(
    program: ExportedProgram, placeholders: Mapping[str, FxNode], inputs: list[FxNode]
) -> tuple[list[FxNode], int, dict[int, int]]:
    (results,) = program.graph.output_node().args
    specs = program.graph_signature.output_specs
    outputs: list[FxNode] = []
    new_values: list[tuple[FxNode, int]] = []
    for spec, node in zip(specs, results, strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION or spec.kind is OutputKind.PARAMETER_MUTATION:
            raise CompileError(
                f"layer {describe(node)} changes {spec.target!r}, and an engine's weights are constant: "
                "make it an input, which an engine may change"
            )
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            changed = placeholders[str(spec.target)]
            if node is not changed:
                new_values.append((node, inputs.index(changed)))
        elif spec.kind is OutputKind.USER_OUTPUT and node is None:
            continue
        elif spec.kind is not OutputKind.USER_OUTPUT or not isinstance(node, FxNode):
            raise CompileError(f"the network returns {node!r}, which is no tensor")
        elif not isinstance(node.meta.get("val"), torch.Tensor):
            raise CompileError(f"the network returns {describe(node)}, which is a number: return a tensor")
        else:
            outputs.append(node)
    returned = len(outputs)
    mutated: dict[int, int] = {}
    for node, number in new_values:
        # A value that the network both returns and writes to an input is one output.
        position = outputs.index(node) if node in outputs else len(outputs)
        if position in mutated:
            position = len(outputs)
        if position == len(outputs):
            outputs.append(node)
        mutated[position] = number
    return outputs, returned, mutated
