"""From a model to one functional graph of PyTorch operators."""

from __future__ import annotations

import inspect
import os
import sysconfig
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen
from torch.utils._pytree import TreeSpec, tree_leaves
from torch.utils._sympy.value_ranges import ValueRanges

from trt_rt.compiled.calling_convention import CallingConvention
from trt_rt.compiled.node_kinds import is_view
from trt_rt.compiler import export_program
from trt_rt.errors import CompileError
from trt_rt.program.inputs import ExampleInputs
from trt_rt.program.rewriting import rewrite_operators

__all__ = ["ProgramGraph", "export_model", "forward_signature", "model_device", "program_graph"]


_LOSSES = (
    torch.ops.aten.cross_entropy_loss.default,
    torch.ops.aten.nll_loss_nd.default,
    torch.ops.aten.nll_loss.default,
    torch.ops.aten.nll_loss2d.default,
)
"""Kept whole where a size varies, their results are scalars to PyTorch, whatever `reduction` is."""


@dataclass
class ProgramGraph:
    """A model as one graph, and how its arguments and results are nested.

    Attributes
    ----------
    module : torch.fx.GraphModule
        The graph. Weights are ``get_attr`` nodes. A placeholder stands for one leaf of the arguments.
        Operators return new tensors; what the model changes is written back by ``copy_`` at the end.
    in_spec, out_spec : TreeSpec
        Nesting of (args, kwargs), and of the result.
    signature : inspect.Signature or None
        Of the model's ``forward``; None where there is no Python function.
    examples : list
        The leaves of the example arguments.
    ranges : dict
        Of symbol to the range of sizes for which the graph is right.
    mutated_state : frozenset of str
        Buffers and parameters that the graph writes to.
    """

    module: GraphModule
    in_spec: TreeSpec
    out_spec: TreeSpec
    signature: inspect.Signature | None
    examples: list[Any]
    ranges: dict[Any, Any]
    mutated_state: frozenset[str]

    @property
    def convention(self) -> CallingConvention:
        """How the program is called."""
        return CallingConvention(self.in_spec, self.out_spec, self.signature, self.examples)


def export_model(model: torch.nn.Module, inputs: ExampleInputs) -> ExportedProgram:
    """Export a module as it is: in its mode, with its weights.

    Raises
    ------
    CompileError
        PyTorch cannot export it; with the line of the model at which that was found out.
    """
    try:
        # Under no_grad, so that a model's own `with torch.no_grad()` does not become a graph in the graph.
        with torch.no_grad():
            exported = export_program(model, inputs.args, inputs.kwargs, dynamic_shapes=inputs.dynamic_shapes)
    except CompileError as error:
        line = _line_of_user(error)
        details = "".join(f"; {detail}" for detail in _details(error))
        raise CompileError(f"{error}{details}{f' [{line}]' if line else ''}") from error.__cause__
    _restore_smallest_sizes(exported, inputs)
    return exported


def _restore_smallest_sizes(program: ExportedProgram, inputs: ExampleInputs) -> None:
    """Allow the sizes 0 and 1 that the user asked for: torch.export says that such a range begins at 2."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    for name, smallest in zip(names, inputs.min_shapes, strict=True):
        for size, low in zip(nodes[name].meta["val"].shape if smallest else (), smallest or (), strict=True):
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol and low < 2:
                found = program.range_constraints[size.node.expr]
                program.range_constraints[size.node.expr] = ValueRanges(low, found.upper)


def _details(error: BaseException) -> list[str]:
    """Return the constraints that the model breaks, which torch.export lists below its first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines()]
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")][:3]


def _line_of_user(error: BaseException) -> str:
    """The innermost line of a traceback that is neither PyTorch's nor ours, as it stands in tracebacks."""
    while error.__cause__ is not None:
        error = error.__cause__
    own = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)), "<")
    python = sysconfig.get_path("stdlib")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(own)
        and (not frame.filename.startswith(python) or "site-packages" in frame.filename)
        and frame.line
    ]
    if not frames:
        return ""
    frame = frames[-1]
    return f'File "{frame.filename}", line {frame.lineno}, in {frame.name}: {frame.line}'


def program_graph(
    program: ExportedProgram, signature: inspect.Signature | None, *, owns_buffers: bool = True
) -> ProgramGraph:
    """Make an exported program functional and turn it into a graph with weights of its own.

    Composite operators, such as attention, stay whole.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        Not changed. It must have example inputs.
    signature : inspect.Signature, optional
        Of the ``forward`` that was exported.
    owns_buffers : bool
        Whether the graph gets copies of the buffers that it writes to, or writes to the model's.

    Raises
    ------
    CompileError
        There are no example inputs, or the program cannot be made functional.
    """
    if program.example_inputs is None:
        raise CompileError(
            "the exported program has no example inputs: set program.example_inputs = (args, kwargs)"
        )
    with torch.no_grad(), _quiet():
        try:
            functional = program.run_decompositions(_decompositions(program))
        except Exception as error:  # a user's custom operators run here and may raise anything
            raise CompileError(
                f"torch.export cannot make the program functional: {error}{_shared_state(program)}"
            ) from error
        module = functional.module(check_guards=False)
    call = functional.call_spec
    if call.in_spec is None or call.out_spec is None:
        raise CompileError("the exported program does not tell how its arguments are nested")
    written = functional.graph_signature
    mutated = frozenset({*written.buffers_to_mutate.values(), *written.parameters_to_mutate.values()})
    graph = GraphModule(module, module.graph)
    graph.graph.set_codegen(CodeGen())
    _own_state(graph, mutated if owns_buffers else frozenset())
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.copy_.default:
            node.meta["val"] = node.args[0].meta["val"]  # PyTorch adds these without their value
    rewrite_operators(graph.graph)
    _separate_returned_views(graph.graph)
    return ProgramGraph(
        module=graph,
        in_spec=call.in_spec,
        out_spec=call.out_spec,
        signature=signature,
        examples=tree_leaves(program.example_inputs),
        ranges=dict(functional.range_constraints),
        mutated_state=mutated,
    )


def _decompositions(program: ExportedProgram) -> dict[Any, Any]:
    """Return the decompositions of composite operators that cannot stay whole."""
    if not any(node.target in _LOSSES for node in program.graph.nodes):
        return {}
    known = torch.export.default_decompositions()
    return {loss: known[loss] for loss in _LOSSES}


def _shared_state(program: ExportedProgram) -> str:
    """Say which parameters and buffers share memory, which PyTorch does not take where one is written to."""
    seen: dict[int, str] = {}
    for name, value in {**program.state_dict, **program.constants}.items():
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            other = seen.setdefault(value.untyped_storage()._cdata, name)
            if other != name:
                return (
                    f". The model's {other} and {name} share memory, which fails if the model writes to one "
                    "of them: keep one, and make the other from it in forward"
                )
    return ""


def _separate_returned_views(graph: Graph) -> None:
    """Give views that the model returns, and that share memory with its arguments or state, their own nodes.

    PyTorch makes a view that is only returned, so that it shares memory with the argument, as the model's
    does. One that an engine also computes with would come out of the engine as a copy. A view of what the
    model writes to an argument is one of the argument after that was written.
    """
    output = graph.output_node()
    written: dict[Any, Node] = {
        node.args[1]: node for node in graph.nodes if node.target is torch.ops.aten.copy_.default
    }
    copied: dict[Node, Node] = dict(written)
    for node in list(output.all_input_nodes):
        chain, viewed = _views(node)
        if not chain or (viewed not in written and (viewed.op != "placeholder" or len(node.users) == 1)):
            continue
        for view in chain:
            if view in copied:
                continue
            with graph.inserting_before(output) if viewed in written else graph.inserting_after(view):
                copied[view] = graph.node_copy(view, lambda source: copied.get(source, source))
        output.replace_input_with(node, copied[node])


def _views(node: Node) -> tuple[list[Node], Node]:
    """Return the views that lead to a node, in their order, and what they are views of."""
    chain: list[Node] = []
    while node.op == "call_function" and is_view(node):
        chain.insert(0, node)
        node = node.all_input_nodes[0]
    return chain, node


def _own_state(graph: GraphModule, mutated: frozenset[str]) -> None:
    """Copy the state `mutated`; share the rest with the model, without gradients."""
    for name, tensor in [*graph.named_parameters(), *graph.named_buffers()]:
        owner_name, _, attribute = name.rpartition(".")
        owner = graph.get_submodule(owner_name)
        own = tensor.detach()
        if name in mutated:
            own = own.clone()
        if isinstance(tensor, torch.nn.Parameter):
            setattr(owner, attribute, torch.nn.Parameter(own, requires_grad=False))
        else:
            setattr(owner, attribute, own)


def forward_signature(model: Any) -> inspect.Signature | None:
    """Return the signature of a module's ``forward``; None if Python cannot tell."""
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None


class _quiet(warnings.catch_warnings):
    """Silence what PyTorch warns about its own code."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(torch|copyreg)(\..*)?$")
        return entered


def model_device(model: Any, examples: Mapping[str, Any] | Any) -> torch.device:
    """Return the device of a model's weights and example inputs: the first GPU among them, else the CPU."""
    state: list[Any] = []
    if isinstance(model, torch.nn.Module):
        state = [*model.parameters(), *model.buffers()]
    elif isinstance(model, ExportedProgram):
        state = [*model.state_dict.values(), *model.constants.values()]
    tensors = [leaf for leaf in [*state, *tree_leaves(examples)] if isinstance(leaf, torch.Tensor)]
    return next((tensor.device for tensor in tensors if tensor.is_cuda), torch.device("cpu"))
