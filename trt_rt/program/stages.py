"""The stages of a compilation: graph, parts, plans, program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from trt_rt.backend import Backend, RuntimeSettings
from trt_rt.backend.runtime_settings import has_runtime_settings
from trt_rt.compiled.call_writer import write_call
from trt_rt.compiled.generated_call import GeneratedCall
from trt_rt.compiled.partition import Partition
from trt_rt.compiled.program import Program
from trt_rt.compiler import Profile
from trt_rt.compiler.progress import NO_DISPLAY
from trt_rt.errors import CompileError
from trt_rt.module import TRTModule
from trt_rt.program.assembling import describe_partition, in_order_of_execution, program_with_engines
from trt_rt.program.exporting import ProgramGraph, program_graph
from trt_rt.program.part import Part, extract_part
from trt_rt.program.part_builder import PartBuilder, part_builder
from trt_rt.program.partitioning import Divided, divide
from trt_rt.program.settings import CompileSettings
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.sizes import limit_sizes_of_results, read_sizes_from_inputs
from trt_rt.program.steps import Steps
from trt_rt.program.support import Support
from trt_rt.program.truncation import truncate_doubles

__all__ = [
    "BuiltPart",
    "BuiltParts",
    "BuiltProgram",
    "DividedProgram",
    "ModelGraph",
    "assemble_program",
    "build_program",
    "divide_program",
    "model_graph",
    "part_of_nodes",
    "require_full",
]


@dataclass
class ModelGraph:
    """A model as a functional graph, and what is known of its sizes.

    Attributes
    ----------
    program : ProgramGraph
        The graph.
    ranges : SizeRanges
        Its sizes.
    """

    program: ProgramGraph
    ranges: SizeRanges


@dataclass
class DividedProgram:
    """A model as a graph whose parts are chosen, exported and accepted by the backend's parser.

    Attributes
    ----------
    graph : ModelGraph
        The whole model.
    divided : Divided
        The parts.
    builder : PartBuilder
        What builds them.
    """

    graph: ModelGraph
    divided: Divided
    builder: PartBuilder

    @property
    def partition(self) -> Partition:
        """The partition as it will be if the builder accepts every part."""
        module = self.graph.program.module
        parts = _named(module, [prepared.part for prepared in self.divided.parts])
        return describe_partition(module, parts, self.divided.reasons, self.builder.backend.name)


@dataclass(frozen=True)
class BuiltPart:
    """A part and its engine.

    Attributes
    ----------
    nodes : tuple of str
        Names of its nodes in the model's graph, in order.
    plan : bytes
        The engine.
    """

    nodes: tuple[str, ...]
    plan: bytes


@dataclass(frozen=True)
class BuiltParts:
    """The engines of a model, and what stays in PyTorch.

    Attributes
    ----------
    parts : tuple of BuiltPart
        The engines.
    reasons : dict
        Why other nodes stay in PyTorch, by name.
    is_complete : bool
        Whether the builder refused nothing.
    """

    parts: tuple[BuiltPart, ...]
    reasons: dict[str, str]
    is_complete: bool


@dataclass
class BuiltProgram:
    """All that a program consists of, before its engines are loaded.

    Attributes
    ----------
    call : GeneratedCall
        The code.
    plans : dict
        Of the name of each engine to its plan.
    state : torch.nn.Module
        Has the weights that the code names.
    partition : Partition
        What runs where.
    nodes : dict
        Of the name of each engine to the names of its operators in the model's graph, in order.
    """

    call: GeneratedCall
    plans: dict[str, bytes]
    state: torch.nn.Module
    partition: Partition
    nodes: dict[str, tuple[str, ...]]

    def load(
        self, backend: Backend, device: torch.device, kernels: Callable[[str], Path] | None = None
    ) -> Program:
        """Load the engines and return the program.

        Parameters
        ----------
        backend : Backend
            That runs the engines.
        device : torch.device
            Where.
        kernels : callable, optional
            Returns, for the name of an engine, the file in which TensorRT-RTX keeps the kernels that it
            compiles at run time. Other backends compile none.
        """
        has_kernels = kernels is not None and has_runtime_settings(backend.api)
        engines = {
            name: TRTModule(
                plan,
                name=name,
                backend=backend,
                device=device,
                settings=RuntimeSettings(runtime_cache=kernels(name)) if kernels and has_kernels else None,
            )
            for name, plan in self.plans.items()
        }
        return Program(self.call, engines, self.state, self.partition)


def model_graph(
    exported: ExportedProgram,
    *,
    signature: Any = None,
    opt_shapes: Sequence[tuple[int, ...] | None] | None = None,
    profiles: Sequence[Profile] | None = None,
    owns_buffers: bool = True,
    truncate_double: bool = False,
) -> ModelGraph:
    """Make an exported program functional, with sizes that are read from its inputs.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        The model.
    signature : inspect.Signature, optional
        Of the model's ``forward``.
    opt_shapes : sequence, optional
        For each leaf of the example inputs the shape for which engines are tuned. Default: the example's.
    profiles : sequence of Profile, optional
        The user's.
    owns_buffers : bool
        Whether the program gets copies of the buffers that it writes to.
    truncate_double : bool
        Whether to compute in float32 what the model computes in float64.

    Raises
    ------
    CompileError
        The program cannot be made functional or truncated, or a profile does not fit it.
    """
    graph = program_graph(exported, signature, owns_buffers=owns_buffers)
    if truncate_double:
        truncate_doubles(graph.module)
    limit_sizes_of_results(graph.module.graph, graph.ranges)
    read_sizes_from_inputs(graph.module.graph, graph.ranges)
    opt_shapes = opt_shapes or [
        tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else None for leaf in graph.examples
    ]
    ranges = SizeRanges(graph.module.graph, graph.ranges, graph.examples, opt_shapes, profiles)
    return ModelGraph(graph, ranges)


def divide_program(
    graph: ModelGraph, settings: CompileSettings, steps: Steps | None = None
) -> DividedProgram:
    """Divide a model's graph into parts; nothing is built."""
    steps = steps or Steps(NO_DISPLAY)
    builder = part_builder(settings.backend, graph.ranges, settings.options, settings.device)
    support = Support(settings.device, settings.exclusions, builder.supports, graph.ranges)
    divided = divide(
        graph.program, graph.ranges, support, settings.min_block_size, builder.prepare, steps.prepare
    )
    return DividedProgram(graph, divided, builder)


def build_program(
    program: DividedProgram, settings: CompileSettings, steps: Steps | None = None
) -> BuiltParts:
    """Build every part; what the builder refuses goes back to PyTorch, with the reason.

    Parameters
    ----------
    program : DividedProgram
        Its parts are taken out, so that the weights of each go when it is built.
    settings : CompileSettings
        Of the compilation.
    steps : Steps, optional
        Told about each part.

    Raises
    ------
    CompileError
        PyTorch would run an operator, and the whole model must be in engines.
    """
    if settings.require_full_compilation:
        require_full(program.partition)
    steps = steps or Steps(NO_DISPLAY)
    divided = program.divided
    built: list[BuiltPart] = []
    refused: dict[str, str] = {}
    count = len(divided.parts)
    while divided.parts:
        steps.build(count - len(divided.parts), count)
        prepared = divided.parts.pop(0)
        try:
            plan = program.builder.build(prepared)
        except CompileError as error:
            reason = f"the builder refuses its part: {error}"
            refused.update(dict.fromkeys((node.name for node in prepared.part.nodes), reason))
        else:
            built.append(BuiltPart(tuple(node.name for node in prepared.part.nodes), plan))
    return BuiltParts(tuple(built), {**divided.reasons, **refused}, not refused)


def assemble_program(graph: ModelGraph, built: BuiltParts, settings: CompileSettings) -> BuiltProgram:
    """Put the engines into a model's graph and write its call.

    Raises
    ------
    CompileError
        PyTorch would run an operator, and the whole model must be in engines.
    """
    program = graph.program
    plans = {part.nodes: part.plan for part in built.parts}
    named = _named(program.module, [part_of_nodes(graph, names) for names in plans])
    partition = describe_partition(program.module, named, built.reasons, settings.backend.name)
    if settings.require_full_compilation:
        require_full(partition)
    call = write_call(program.convention, program_with_engines(program.module, named), program.ranges)
    nodes = {name: tuple(node.name for node in part.nodes) for name, part in named.items()}
    by_name = {name: plans[names] for name, names in nodes.items()}
    return BuiltProgram(call, by_name, program.module, partition, nodes)


def part_of_nodes(graph: ModelGraph, names: Sequence[str]) -> Part:
    """Return the part that has the nodes of these names."""
    program = graph.program
    nodes = {node.name: node for node in program.module.graph.nodes}
    return extract_part(program.module, [nodes[name] for name in names], program.mutated_state, graph.ranges)


def _named(module: GraphModule, parts: Sequence[Part]) -> dict[str, Part]:
    """The parts by the names of their engines, in the order in which they run."""
    order = in_order_of_execution(module, parts)
    return {f"engine_{number}": parts[position] for number, position in enumerate(order)}


def require_full(partition: Partition) -> None:
    """Raise a CompileError if PyTorch would run an operator."""
    left = [step for step in partition.torch_operators if not step.is_glue]
    if not left:
        return
    reasons = "; ".join(
        f"{step.operator}{f' [{step.source}]' if step.source else ''}: {step.reason}" for step in left
    )
    raise CompileError(f"require_full_compilation=True, and PyTorch would run {reasons}")
