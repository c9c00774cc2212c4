"""The steps of a compilation, from a model to a program."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt.backend import Backend, load
from trt_rt.compiler import BuildOptions, Precision, Profile
from trt_rt.compiler.builder_choice import choose_builder
from trt_rt.compiler.onnx_export import DynamicShapes
from trt_rt.compiler.precision import cast_module
from trt_rt.errors import CompileError
from trt_rt.module import TRTModule
from trt_rt.program.assembling import describe_partition, in_order_of_execution, program_with_engines
from trt_rt.program.call_writer import write_call
from trt_rt.program.exporting import (
    ProgramGraph,
    export_model,
    forward_signature,
    model_device,
    program_graph,
)
from trt_rt.program.generated_call import GeneratedCall
from trt_rt.program.inputs import example_inputs
from trt_rt.program.part import Part
from trt_rt.program.part_builder import PartBuilder, part_builder
from trt_rt.program.partition import Partition
from trt_rt.program.partitioning import Divided, divide
from trt_rt.program.program import Program
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.sizes import limit_sizes_of_results, read_sizes_from_inputs
from trt_rt.program.support import Exclusions, Support

__all__ = [
    "BuiltProgram",
    "CompileSettings",
    "DividedProgram",
    "build_program",
    "compile_model",
    "divide_program",
]


@dataclass(frozen=True)
class CompileSettings:
    """What a compilation may be asked for besides the model and its inputs; see :func:`trt_rt.compile`."""

    backend: Backend
    device: torch.device
    exclusions: Exclusions
    options: BuildOptions
    min_block_size: int
    require_full_compilation: bool


@dataclass
class DividedProgram:
    """A model as a graph whose parts are chosen, exported and accepted by the backend's parser.

    Attributes
    ----------
    graph : ProgramGraph
        The whole model.
    ranges : SizeRanges
        Its sizes.
    divided : Divided
        The parts.
    builder : PartBuilder
        What builds them.
    """

    graph: ProgramGraph
    ranges: SizeRanges
    divided: Divided
    builder: PartBuilder

    @property
    def partition(self) -> Partition:
        """The partition as it will be if the builder accepts every part."""
        parts = _named(self.graph, [prepared.part for prepared in self.divided.parts])
        return describe_partition(self.graph.module, parts, self.divided.reasons, self.builder.backend.name)


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
    """

    call: GeneratedCall
    plans: dict[str, bytes]
    state: torch.nn.Module
    partition: Partition

    def load(self, backend: Backend, device: torch.device) -> Program:
        """Load the engines and return the program."""
        engines = {
            name: TRTModule(plan, name=name, backend=backend, device=device)
            for name, plan in self.plans.items()
        }
        return Program(self.call, engines, self.state, self.partition)


def divide_program(
    exported: ExportedProgram,
    settings: CompileSettings,
    *,
    signature: Any = None,
    opt_shapes: Sequence[tuple[int, ...] | None] | None = None,
    profiles: Sequence[Profile] | None = None,
) -> DividedProgram:
    """Make an exported program functional and divide it into parts; nothing is built.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        The model.
    settings : CompileSettings
        Of the compilation.
    signature : inspect.Signature, optional
        Of the model's ``forward``.
    opt_shapes : sequence, optional
        For each leaf of the example inputs the shape for which engines are tuned. Default: the example's.
    profiles : sequence of Profile, optional
        The user's.

    Raises
    ------
    CompileError
        The program cannot be made functional, or a profile does not fit it.
    """
    graph = program_graph(exported, signature)
    limit_sizes_of_results(graph.module.graph, graph.ranges)
    read_sizes_from_inputs(graph.module.graph, graph.ranges)
    opt_shapes = opt_shapes or [
        tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else None for leaf in graph.examples
    ]
    ranges = SizeRanges(graph.module.graph, graph.ranges, graph.examples, opt_shapes, profiles)
    builder = part_builder(settings.backend, ranges, settings.options, settings.device)
    support = Support(settings.device, settings.exclusions, builder.supports, ranges)
    divided = divide(graph, ranges, support, settings.min_block_size, builder.prepare)
    return DividedProgram(graph, ranges, divided, builder)


def build_program(program: DividedProgram, settings: CompileSettings) -> BuiltProgram:
    """Build every part; what the builder refuses goes back to PyTorch, with the reason.

    Raises
    ------
    CompileError
        A part is refused and the whole model must be in engines.
    """
    divided = program.divided
    plans: dict[frozenset[str], bytes] = {}
    parts: list[Part] = []
    while divided.parts:
        # Taken out of the list, so that its weights go when it is built.
        prepared = divided.parts.pop(0)
        try:
            plans[prepared.part.names] = program.builder.build(prepared)
            parts.append(prepared.part)
        except CompileError as error:
            divided.reasons.update(
                dict.fromkeys(prepared.part.names, f"the builder refuses its part: {error}")
            )
    named = _named(program.graph, parts)
    partition = describe_partition(program.graph.module, named, divided.reasons, program.builder.backend.name)
    if settings.require_full_compilation:
        _require_full(partition)
    graph = program_with_engines(program.graph.module, named)
    call = write_call(program.graph, graph, program.ranges)
    plans_by_name = {name: plans[part.names] for name, part in named.items()}
    return BuiltProgram(call, plans_by_name, program.graph.module, partition)


def _named(graph: ProgramGraph, parts: Sequence[Part]) -> dict[str, Part]:
    """The parts by the names of their engines, in the order in which they run."""
    order = in_order_of_execution(graph.module, parts)
    return {f"engine_{number}": parts[position] for number, position in enumerate(order)}


def _require_full(partition: Partition) -> None:
    left = [step for step in partition.torch_operators if not step.is_glue]
    if not left:
        return
    reasons = "; ".join(
        f"{step.operator}{f' [{step.source}]' if step.source else ''}: {step.reason}" for step in left
    )
    raise CompileError(f"require_full_compilation=True, and PyTorch would run {reasons}")


def compile_model(
    model: Any,
    *,
    inputs: Sequence[Any] | None,
    arg_inputs: Sequence[Any] | None,
    kwarg_inputs: Mapping[str, Any] | None,
    dynamic_shapes: DynamicShapes,
    profiles: Sequence[Profile] | None,
    precision: Precision,
    backend: str | Backend,
    torch_executed_ops: Iterable[Any],
    torch_executed_modules: Iterable[Any],
    min_block_size: int,
    require_full_compilation: bool,
    dryrun: bool,
    build_settings: Mapping[str, Any],
) -> Program | Partition:
    """Compile a model; :func:`trt_rt.compile` explains the parameters."""
    options = _build_options(precision, build_settings)
    device = model_device(model, (inputs, arg_inputs, kwarg_inputs))
    settings = CompileSettings(
        backend=_choose_backend(backend, device),
        device=device,
        exclusions=Exclusions.of(torch_executed_ops, torch_executed_modules, model),
        options=options,
        min_block_size=min_block_size,
        require_full_compilation=require_full_compilation,
    )
    if not dryrun:
        settings.backend.require(device)
    opt_shapes = None
    if isinstance(model, ExportedProgram):
        _refuse_inputs(inputs, arg_inputs, kwarg_inputs, dynamic_shapes)
        if options.precision != "strong":
            raise CompileError(
                f"precision={options.precision!r}: an exported program has its dtypes. Give compile the "
                "torch.nn.Module, which it can cast, or export a module in that precision"
            )
        exported, signature = model, None
    elif isinstance(model, torch.nn.Module):
        model = cast_module(model, options.precision)
        given = example_inputs(model, inputs, arg_inputs, kwarg_inputs, dynamic_shapes, device)
        exported, signature = export_model(model, given), forward_signature(model)
        opt_shapes = given.opt_shapes
    else:
        raise CompileError(
            f"cannot compile a {type(model).__name__}: give a torch.nn.Module or a "
            "torch.export.ExportedProgram"
        )
    divided = divide_program(
        exported, settings, signature=signature, opt_shapes=opt_shapes, profiles=profiles
    )
    if dryrun:
        partition = divided.partition
        if sys.stdout.isatty():
            sys.stdout.write(f"{partition}\n")
        return partition
    built = build_program(divided, settings)
    if not built.plans:
        warnings.warn(
            f"no part of {type(model).__name__} runs in an engine; print(program.partition) has the reasons",
            stacklevel=2,
        )
    return built.load(settings.backend, device)


def _refuse_inputs(*given: Any) -> None:
    if any(value is not None for value in given):
        raise CompileError(
            "an exported program has its own inputs and ranges: give it to compile without inputs, "
            "kwarg_inputs and dynamic_shapes"
        )


def _build_options(precision: Precision, settings: Mapping[str, Any]) -> BuildOptions:
    known = sorted({field.name for field in fields(BuildOptions)} - {"precision", "progress"})
    for name in settings:
        if name not in known:
            near = get_close_matches(name, [*known, *_PARAMETERS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise CompileError(f"compile has no setting {name!r}: {hint}")
    return BuildOptions(precision=precision, **settings)


_PARAMETERS = tuple(inspect.signature(compile_model).parameters)


def _choose_backend(wanted: str | Backend, device: torch.device) -> Backend:
    if wanted == "auto" and device.type == "cpu":
        # TensorRT-RTX would build here, and could not run what it has built.
        return load("reference")
    return choose_builder(wanted)
