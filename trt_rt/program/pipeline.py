"""The steps of a compilation, from a model to a program."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from trt_rt.backend import Backend, load
from trt_rt.compiler import BuildOptions, Precision, Profile
from trt_rt.compiler.builder_choice import choose_builder
from trt_rt.compiler.precision import cast_module
from trt_rt.errors import CompileError
from trt_rt.module import TRTModule
from trt_rt.program.assembling import describe_partition, in_order_of_execution, program_with_engines
from trt_rt.program.cache import CachedPart, CachedProgram, ProgramCache, cache_folder
from trt_rt.program.cache_key import program_key
from trt_rt.program.call_writer import write_call
from trt_rt.program.checking import differences_from_eager
from trt_rt.program.exporting import (
    ProgramGraph,
    export_model,
    forward_signature,
    model_device,
    program_graph,
)
from trt_rt.program.generated_call import GeneratedCall
from trt_rt.program.inputs import example_arguments, example_inputs
from trt_rt.program.part import Part, extract_part
from trt_rt.program.part_builder import PartBuilder, part_builder
from trt_rt.program.partition import Partition
from trt_rt.program.partitioning import Divided, divide
from trt_rt.program.program import Program
from trt_rt.program.request import DEFAULT_MIN_BLOCK_SIZE, CompileRequest
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.sizes import limit_sizes_of_results, read_sizes_from_inputs
from trt_rt.program.steps import Steps, shown_steps
from trt_rt.program.support import Exclusions, Support
from trt_rt.program.torchscript import module_of_torchscript

__all__ = [
    "BuiltProgram",
    "CompileSettings",
    "CompiledModel",
    "DividedProgram",
    "ModelGraph",
    "assemble_program",
    "build_program",
    "compile_exported",
    "compile_model",
    "divide_program",
    "model_graph",
    "settings_of_options",
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
    parts : dict
        Of the name of each engine to its operators.
    """

    call: GeneratedCall
    plans: dict[str, bytes]
    state: torch.nn.Module
    partition: Partition
    parts: dict[str, Part]

    def load(self, backend: Backend, device: torch.device) -> Program:
        """Load the engines and return the program."""
        engines = {
            name: TRTModule(plan, name=name, backend=backend, device=device)
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

    Raises
    ------
    CompileError
        The program cannot be made functional, or a profile does not fit it.
    """
    graph = program_graph(exported, signature, owns_buffers=owns_buffers)
    limit_sizes_of_results(graph.module.graph, graph.ranges)
    read_sizes_from_inputs(graph.module.graph, graph.ranges)
    opt_shapes = opt_shapes or [
        tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else None for leaf in graph.examples
    ]
    ranges = SizeRanges(graph.module.graph, graph.ranges, graph.examples, opt_shapes, profiles)
    return ModelGraph(graph, ranges)


def divide_program(graph: ModelGraph, settings: CompileSettings) -> DividedProgram:
    """Divide a model's graph into parts; nothing is built."""
    builder = part_builder(settings.backend, graph.ranges, settings.options, settings.device)
    support = Support(settings.device, settings.exclusions, builder.supports, graph.ranges)
    divided = divide(graph.program, graph.ranges, support, settings.min_block_size, builder.prepare)
    return DividedProgram(graph, divided, builder)


def build_program(
    program: DividedProgram, settings: CompileSettings, steps: Steps | None = None
) -> tuple[CachedProgram, bool]:
    """Build every part; what the builder refuses goes back to PyTorch, with the reason.

    Parameters
    ----------
    program : DividedProgram
        Its parts are taken out, so that the weights of each go when it is built.
    settings : CompileSettings
        Of the compilation.
    steps : Steps, optional
        Told about each part.

    Returns
    -------
    program : CachedProgram
        The plans.
    is_complete : bool
        Whether the builder refused nothing.

    Raises
    ------
    CompileError
        PyTorch would run an operator, and the whole model must be in engines.
    """
    if settings.require_full_compilation:
        _require_full(program.partition)
    divided = program.divided
    built: list[CachedPart] = []
    refused: dict[str, str] = {}
    count = len(divided.parts)
    while divided.parts:
        if steps is not None:
            steps.next(f"engine {count - len(divided.parts) + 1} of {count}")
        prepared = divided.parts.pop(0)
        try:
            plan = program.builder.build(prepared)
        except CompileError as error:
            reason = f"the builder refuses its part: {error}"
            refused.update(dict.fromkeys((node.name for node in prepared.part.nodes), reason))
        else:
            built.append(CachedPart(tuple(node.name for node in prepared.part.nodes), plan))
    return CachedProgram(tuple(built), {**divided.reasons, **refused}), not refused


def assemble_program(graph: ModelGraph, built: CachedProgram, settings: CompileSettings) -> BuiltProgram:
    """Put the engines into a model's graph and write its call.

    Raises
    ------
    CompileError
        PyTorch would run an operator, and the whole model must be in engines.
    """
    program = graph.program
    nodes = {node.name: node for node in program.module.graph.nodes}
    plans = {part.nodes: part.plan for part in built.parts}
    parts = [
        extract_part(program.module, [nodes[name] for name in names], program.mutated_buffers, graph.ranges)
        for names in plans
    ]
    named = _named(program.module, parts)
    partition = describe_partition(program.module, named, built.reasons, settings.backend.name)
    if settings.require_full_compilation:
        _require_full(partition)
    call = write_call(program, program_with_engines(program.module, named), graph.ranges)
    by_name = {name: plans[tuple(node.name for node in part.nodes)] for name, part in named.items()}
    return BuiltProgram(call, by_name, program.module, partition, named)


def _named(module: GraphModule, parts: Sequence[Part]) -> dict[str, Part]:
    """The parts by the names of their engines, in the order in which they run."""
    order = in_order_of_execution(module, parts)
    return {f"engine_{number}": parts[position] for number, position in enumerate(order)}


def _require_full(partition: Partition) -> None:
    left = [step for step in partition.torch_operators if not step.is_glue]
    if not left:
        return
    reasons = "; ".join(
        f"{step.operator}{f' [{step.source}]' if step.source else ''}: {step.reason}" for step in left
    )
    raise CompileError(f"require_full_compilation=True, and PyTorch would run {reasons}")


def compile_model(request: CompileRequest) -> Program | Partition:
    """Compile a model; :func:`trt_rt.compile` explains what a request says."""
    settings = _settings(request)
    if request.check not in _CHECKS:
        raise CompileError(f"check={request.check!r}: it is None, 'eager' or 'warn'")
    if not request.dryrun:
        settings.backend.require(settings.device)
    with shown_steps(request.progress) as steps:
        steps.next("export")
        model = _exported(request, settings)
        sizes: dict[str, Any] = {
            "signature": model.signature,
            "opt_shapes": model.opt_shapes,
            "profiles": request.profiles,
        }
        if request.dryrun:
            graph = model_graph(model.program, **sizes)
            steps.next("divide")
            partition = divide_program(graph, settings).partition
        else:
            compiled = compile_exported(
                model.program,
                settings,
                cache_dir=request.cache_dir,
                name=model.name,
                steps=steps,
                **sizes,
            )
            if request.check is not None:
                steps.next("check")
                _check(compiled, model, request.check)
    if request.dryrun:
        if sys.stdout.isatty():
            sys.stdout.write(f"{partition}\n")
        return partition
    if not compiled.built.plans:
        warnings.warn(
            f"no part of {model.name} runs in an engine; print(program.partition) has the reasons",
            stacklevel=3,
        )
    return compiled.program


@dataclass(frozen=True)
class CompiledModel:
    """A program and what it was made from.

    Attributes
    ----------
    program : Program
        Ready to be called.
    graph : ModelGraph
        The whole model.
    built : BuiltProgram
        Its engines and code.
    """

    program: Program
    graph: ModelGraph
    built: BuiltProgram


def compile_exported(
    exported: ExportedProgram,
    settings: CompileSettings,
    *,
    cache_dir: str | os.PathLike[str] | None,
    name: str,
    steps: Steps | None = None,
    owns_buffers: bool = True,
    signature: inspect.Signature | None = None,
    opt_shapes: Sequence[tuple[int, ...] | None] | None = None,
    profiles: Sequence[Profile] | None = None,
) -> CompiledModel:
    """Compile an exported program.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        The model.
    settings : CompileSettings
        Of the compilation.
    cache_dir : path-like, optional
        As for `trt_rt.compile`.
    name : str
        Of the model, for the cache.
    steps : Steps, optional
        Told about each step.
    owns_buffers : bool
        Whether the program gets copies of the buffers that it writes to, or writes to the model's.
    signature, opt_shapes, profiles
        As for :func:`model_graph`.
    """
    graph = model_graph(
        exported, signature=signature, opt_shapes=opt_shapes, profiles=profiles, owns_buffers=owns_buffers
    )
    built = assemble_program(graph, _built(graph, settings, cache_dir, name, steps), settings)
    return CompiledModel(built.load(settings.backend, settings.device), graph, built)


@dataclass(frozen=True)
class _Exported:
    """A model as torch.export gives it.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        The export.
    module : torch.nn.Module
        What was exported, in the precision of the program.
    name : str
        Of the model's class.
    signature : inspect.Signature or None
        Of the model's ``forward``.
    opt_shapes : sequence or None
        The shapes for which engines are tuned, if not those of the examples.
    """

    program: ExportedProgram
    module: torch.nn.Module
    name: str
    signature: inspect.Signature | None
    opt_shapes: Sequence[tuple[int, ...] | None] | None


def _exported(request: CompileRequest, settings: CompileSettings) -> _Exported:
    model, precision = request.model, settings.options.precision
    name = type(model).__name__
    if isinstance(model, ExportedProgram):
        given = (request.inputs, request.arg_inputs, request.kwarg_inputs, request.dynamic_shapes)
        if any(value is not None for value in given):
            raise CompileError(
                "an exported program has its own inputs and ranges: give it to compile without inputs, "
                "kwarg_inputs and dynamic_shapes"
            )
        if precision != "strong":
            raise CompileError(
                f"precision={precision!r}: an exported program has its dtypes. Give compile the "
                "torch.nn.Module, which it can cast, or export a module in that precision"
            )
        return _Exported(model, model.module(check_guards=False), name, None, None)
    if not isinstance(model, torch.nn.Module):
        raise CompileError(
            f"cannot compile a {name}: give a torch.nn.Module or a torch.export.ExportedProgram"
        )
    if isinstance(model, torch.jit.ScriptModule):
        args, kwargs = example_arguments(
            request.inputs, request.arg_inputs, request.kwarg_inputs, settings.device
        )
        model = module_of_torchscript(model, args, kwargs)
    module = cast_module(model, precision)
    examples = example_inputs(
        module,
        request.inputs,
        request.arg_inputs,
        request.kwarg_inputs,
        request.dynamic_shapes,
        settings.device,
    )
    program = export_model(module, examples)
    return _Exported(program, module, name, forward_signature(module), examples.opt_shapes)


def _built(
    graph: ModelGraph,
    settings: CompileSettings,
    cache_dir: str | os.PathLike[str] | None,
    name: str,
    steps: Steps | None,
) -> CachedProgram:
    """The engines, from the cache or built now."""
    folder = cache_folder() if cache_dir == "auto" else cache_dir
    if folder is None:
        return build_program(divide_program(graph, settings), settings, steps)[0]
    cache = ProgramCache(Path(folder))
    decisive = [graph.ranges.described(), settings.min_block_size, settings.exclusions.described()]
    key = program_key(graph.program, settings.backend, settings.device, settings.options, decisive)
    with cache.lock(key):
        found = cache.load(key)
        if found is not None:
            return found
        built, is_complete = build_program(divide_program(graph, settings), settings, steps)
        # What the builder refused for want of memory, say, it may build another time.
        if is_complete:
            cache.store(key, built, model=name, backend=settings.backend.name)
        return built


def _check(compiled: CompiledModel, model: _Exported, check: str) -> None:
    graph = compiled.graph
    differences = differences_from_eager(
        compiled.program, graph.program, compiled.built.parts, graph.ranges, model.module
    )
    if not differences:
        return
    message = f"the program of {model.name} is not right: {'; '.join(differences)}"
    if check == "eager":
        raise CompileError(message)
    warnings.warn(message, stacklevel=4)


_CHECKS = (None, "eager", "warn")


def _settings(request: CompileRequest) -> CompileSettings:
    device = model_device(request.model, (request.inputs, request.arg_inputs, request.kwarg_inputs))
    options = _build_options(request.precision, request.build_settings)
    exclusions = Exclusions.of(request.torch_executed_ops, request.torch_executed_modules, request.model)
    return CompileSettings(
        backend=_choose_backend(request.backend, device),
        device=device,
        exclusions=exclusions,
        options=options,
        min_block_size=request.min_block_size,
        require_full_compilation=request.require_full_compilation,
    )


def settings_of_options(
    options: Mapping[str, Any], module: torch.nn.Module, examples: Sequence[Any]
) -> tuple[CompileSettings, Any]:
    """Return the settings, and the cache's folder, that a dict of parameters of `trt_rt.compile` gives.

    Raises
    ------
    CompileError
        An option is unknown, or is none where there are no example inputs to give.
    """
    left = dict(options)
    device = model_device(module, examples)
    backend = _choose_backend(left.pop("backend", "auto"), device)
    backend.require(device)
    exclusions = Exclusions.of(
        left.pop("torch_executed_ops", ()), left.pop("torch_executed_modules", ()), None
    )
    min_block_size = left.pop("min_block_size", DEFAULT_MIN_BLOCK_SIZE)
    require_full = left.pop("require_full_compilation", False)
    cache_dir = left.pop("cache_dir", "auto")
    settings = CompileSettings(
        backend=backend,
        device=device,
        exclusions=exclusions,
        options=_build_options("strong", left),
        min_block_size=min_block_size,
        require_full_compilation=require_full,
    )
    return settings, cache_dir


def _build_options(precision: Precision, settings: Mapping[str, Any]) -> BuildOptions:
    known = sorted({field.name for field in fields(BuildOptions)} - {"precision", "progress"})
    for name in settings:
        if name not in known:
            parameters = [field.name for field in fields(CompileRequest)]
            near = get_close_matches(name, [*known, *parameters], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise CompileError(f"compile has no setting {name!r}: {hint}")
    return BuildOptions(precision=precision, **settings)


def _choose_backend(wanted: str | Backend, device: torch.device) -> Backend:
    if wanted == "auto" and device.type == "cpu":
        # TensorRT-RTX would build here, and could not run what it has built.
        return load("reference")
    return choose_builder(wanted)
