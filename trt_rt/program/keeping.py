"""What the cache keeps of a program, and how a program is made from that and from an exported model.

A kept program is what runs: the graph in which engines stand for operators. The model needs no second trace
for it, as it would to be divided.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule
from torch.utils._pytree import tree_leaves, tree_structure

from trt_rt.archive.engine_nodes import EngineOfFile, engines_of
from trt_rt.archive.exported_json import exported_to_json
from trt_rt.archive.graph_reading import graph_module, refused_by_pytorch
from trt_rt.archive.partitions import partition_to_json, read_partition
from trt_rt.archive.program_checks import ProgramChecks
from trt_rt.archive.schema_reader import read_schema
from trt_rt.archive.strict_json import parse
from trt_rt.backend import Backend
from trt_rt.compiled import Partition, TorchOperator
from trt_rt.compiled.call_writer import write_call
from trt_rt.compiled.calling_convention import CallingConvention
from trt_rt.compiled.exported import exported_without_plans
from trt_rt.compiled.generated_call import GeneratedCall
from trt_rt.compiler.onnx_model import last_line_of_user
from trt_rt.errors import ArchiveError
from trt_rt.program.cache import CachedEngine, CachedProgram
from trt_rt.program.stages import BuiltProgram

__all__ = ["kept_program", "restored_program"]

_log = logging.getLogger("trt_rt.compiler")

_WHERE = "the cached program"
_PLAN = ".plan"


def kept_program(
    built: BuiltProgram, exported: ExportedProgram, written: frozenset[str], backend: Backend
) -> CachedProgram | None:
    """Return what is kept of a program; None, with a line in the log, where it cannot be described.

    Parameters
    ----------
    built : BuiltProgram
        The program.
    exported : torch.export.ExportedProgram
        What it was made from.
    written : frozenset of str
        Buffers that it writes to.
    backend : Backend
        Of its engines.
    """
    operators = tuple(sorted(set(_operators(built.call.graph, built.state))))
    try:
        described = exported_without_plans(_with_flat_arguments(built), backend.name, built.state)
        graph = exported_to_json(described).decode()
        _read(graph, operators, None)
        available = _tensors(exported)
        for path in [*described.state_dict, *described.constants]:
            if path not in available and not path.endswith(_PLAN):
                raise ArchiveError(f"the weight {path!r} is not one of the model's")
    except ArchiveError as error:
        _log.info("the program is not kept: %s", error)
        return None
    lines = _lines(exported)
    return CachedProgram(
        graph=graph,
        operators=operators,
        engines=tuple(CachedEngine(name, built.nodes[name], plan) for name, plan in built.plans.items()),
        partition=partition_to_json(built.partition),
        origins={
            step.name: lines[step.source] for step in built.partition.torch_operators if step.source in lines
        },
        written=tuple(sorted(written)),
    )


def restored_program(
    cached: CachedProgram,
    exported: ExportedProgram,
    signature: inspect.Signature | None,
    backend: Backend,
    device: torch.device,
    *,
    owns_buffers: bool,
) -> BuiltProgram:
    """Return a program from what was kept of it.

    Parameters
    ----------
    cached : CachedProgram
        What was kept.
    exported : torch.export.ExportedProgram
        The model. Its weights become those of the program, shared but for buffers that the program writes to.
    signature : inspect.Signature, optional
        Of the model's ``forward``.
    backend : Backend
        Of the engines.
    device : torch.device
        Where it is to run.
    owns_buffers : bool
        Whether the program gets copies of the buffers that it writes to.

    Raises
    ------
    ArchiveError
        The entry is not one that this version can read.
    """
    program = _read(cached.graph, cached.operators, device)
    engines = [
        replace(engine, name=engine.plan.removesuffix(_PLAN)) for engine in engines_of(program, _WHERE)
    ]
    partition = read_partition(backend.name, cached.partition, _WHERE)
    copied = frozenset(cached.written) if owns_buffers else frozenset()
    with refused_by_pytorch(_WHERE):
        state, constants = _weights(program, engines, _tensors(exported), copied)
        graph = graph_module(program, state, constants, engines)
        call_spec = exported.call_spec
        assert call_spec.in_spec is not None
        assert call_spec.out_spec is not None
        convention = CallingConvention(
            call_spec.in_spec, call_spec.out_spec, signature, tree_leaves(exported.example_inputs)
        )
        call = write_call(convention, graph.module.graph, graph.ranges)
    return BuiltProgram(
        call,
        {engine.name: engine.plan for engine in cached.engines},
        graph.module,
        _with_lines(partition, cached.origins, exported),
        {engine.name: engine.nodes for engine in cached.engines},
    )


def _read(graph: str, operators: tuple[str, ...], device: torch.device | None) -> schema.ExportedProgram:
    program = read_schema(schema.ExportedProgram, parse(graph.encode(), _WHERE), _WHERE)
    ProgramChecks(_WHERE, operators, device=device).check(program)
    return program


def _operators(graph: Graph, owner: torch.nn.Module) -> Iterator[str]:
    """Names of the operators that PyTorch runs, also in graphs that operators take."""
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            yield str(node.target)
        elif node.op == "get_attr" and node.users:
            branch = getattr(owner, str(node.target), None)
            if isinstance(branch, GraphModule):
                yield from _operators(branch.graph, branch)


def _with_flat_arguments(built: BuiltProgram) -> GeneratedCall:
    """The call with arguments and results that are not nested: how they are comes from the model."""
    call = built.call
    results = call.graph.output_node().args[0]
    assert isinstance(results, (list, tuple))
    examples = call.convention.examples
    flat = CallingConvention(
        tree_structure(((0,) * len(examples), {})), tree_structure((0,) * len(results)), None, examples
    )
    return replace(call, convention=flat)


def _tensors(exported: ExportedProgram) -> dict[str, torch.Tensor]:
    found = {**exported.state_dict, **exported.constants}
    return {path: value for path, value in found.items() if isinstance(value, torch.Tensor)}


def _weights(
    program: schema.ExportedProgram,
    engines: list[EngineOfFile],
    tensors: dict[str, torch.Tensor],
    copied: frozenset[str],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights that the graph names, from the model: those of its state, and constants."""
    plans = {engine.plan for engine in engines}
    dtypes = program.graph_module.graph.tensor_values
    state: dict[str, torch.Tensor] = {}
    constants: dict[str, torch.Tensor] = {}
    for spec in program.graph_module.signature.input_specs:
        value = spec.value
        if spec.type == "parameter":
            path = value.parameter_name
        elif spec.type == "buffer":
            path = value.buffer_name
        elif spec.type == "tensor_constant":
            path = value.tensor_constant_name
        else:
            continue
        if path in plans:
            state[path] = torch.empty(0, dtype=torch.uint8)
            continue
        # Weights in float64 may have been truncated.
        own = tensors[path].detach().to(_SERIALIZE_TO_TORCH_DTYPE[dtypes[value.arg.name].dtype])
        if path in copied:
            own = own.clone()
        is_kept = spec.type == "parameter" or (spec.type == "buffer" and value.persistent)
        if spec.type == "parameter":
            own = torch.nn.Parameter(own, requires_grad=False)
        (state if is_kept else constants)[path] = own
    return state, constants


def _lines(exported: ExportedProgram) -> dict[str, str]:
    """Of lines of the model to the first node that has each."""
    found: dict[str, str] = {}
    for node in exported.graph.nodes:
        line = last_line_of_user(node.meta.get("stack_trace") or "")
        if line:
            found.setdefault(line, node.name)
    return found


def _with_lines(partition: Partition, origins: dict[str, str], exported: ExportedProgram) -> Partition:
    """Add the lines of the model, which may have moved in its file since the program was kept."""
    wanted = set(origins.values())
    lines = {
        node.name: last_line_of_user(node.meta.get("stack_trace") or "") or ""
        for node in exported.graph.nodes
        if node.name in wanted
    }
    steps = tuple(
        replace(step, source=lines.get(origins.get(step.name, ""), ""))
        if isinstance(step, TorchOperator)
        else step
        for step in partition.steps
    )
    return Partition(partition.backend, steps)
