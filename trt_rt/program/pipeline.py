"""A compilation from a model to a program: export, cache, stages, check."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch.export import ExportedProgram

from trt_rt.compiled.partition import Partition
from trt_rt.compiled.program import Program
from trt_rt.compiler import Profile
from trt_rt.compiler.precision import cast_module
from trt_rt.compiler.profiles import check_profiles
from trt_rt.errors import ArchiveError, CompileError
from trt_rt.program.cache import ProgramCache, cache_folder
from trt_rt.program.cache_key import program_key
from trt_rt.program.checking import differences_from_eager
from trt_rt.program.exporting import export_model, forward_signature
from trt_rt.program.inputs import example_arguments, example_inputs
from trt_rt.program.keeping import kept_program, restored_program
from trt_rt.program.request import IR, CompileRequest
from trt_rt.program.settings import CompileSettings, settings_of_request
from trt_rt.program.stages import (
    BuiltProgram,
    ModelGraph,
    assemble_program,
    build_program,
    divide_program,
    model_graph,
    part_of_nodes,
    require_full,
)
from trt_rt.program.steps import Steps, shown_steps
from trt_rt.program.torchscript import module_of_torchscript
from trt_rt.reference.example_tensors import mixed_up_inputs

__all__ = ["CompiledModel", "ModelSource", "built_program", "compile_exported", "compile_model"]

_CHECKS = (None, "eager", "warn")


def compile_model(request: CompileRequest) -> Program | Partition:
    """Compile a model; :func:`trt_rt.compile` explains what a request says."""
    settings = settings_of_request(request)
    if request.check not in _CHECKS:
        raise CompileError(f"check={request.check!r}: it is None, 'eager' or 'warn'")
    check_profiles(request.profiles)
    if not request.dryrun:
        settings.backend.require(settings.device)
    with shown_steps(request.progress) as steps:
        steps.export()
        source, module = _exported(request, settings)
        if request.dryrun:
            graph = source.graph(settings)
            steps.divide()
            partition = divide_program(graph, settings, steps).partition
        else:
            compiled = compile_exported(source, settings, cache_dir=request.cache_dir, steps=steps)
            if request.check is not None:
                steps.check()
                _check(compiled, source, module, settings, request.check)
    if request.dryrun:
        if sys.stdout.isatty():
            sys.stdout.write(f"{partition}\n")
        return partition
    if not compiled.nodes:
        warnings.warn(
            f"no part of {source.name} runs in an engine; print(program.partition) has the reasons",
            stacklevel=3,
        )
    return compiled.program


@dataclass
class ModelSource:
    """An exported model and what a program of it depends on, besides settings.

    Attributes
    ----------
    exported : torch.export.ExportedProgram
        The model.
    name : str
        Of the model, for the cache.
    signature : inspect.Signature or None
        Of the model's ``forward``.
    opt_shapes : sequence or None
        The shapes for which engines are tuned, if not those of the examples.
    profiles : sequence of Profile or None
        The user's.
    owns_buffers : bool
        Whether the program gets copies of the buffers that it writes to, or writes to the model's.
    """

    exported: ExportedProgram
    name: str
    signature: inspect.Signature | None = None
    opt_shapes: Sequence[tuple[int, ...] | None] | None = None
    profiles: Sequence[Profile] | None = None
    owns_buffers: bool = True
    _graph: ModelGraph | None = field(default=None, init=False)

    def graph(self, settings: CompileSettings) -> ModelGraph:
        """Make the model functional, once.

        PyTorch cannot do it twice with sizes that depend on values: it remembers those of the first time.
        """
        if self._graph is None:
            self._graph = model_graph(
                self.exported,
                signature=self.signature,
                opt_shapes=self.opt_shapes,
                profiles=self.profiles,
                owns_buffers=self.owns_buffers,
                truncate_double=settings.truncate_double,
            )
        return self._graph

    def key(self, settings: CompileSettings) -> str:
        """The name of the model's program in the cache."""
        exclusions = settings.exclusions
        decisive = [
            self.opt_shapes,
            self.profiles,
            self.owns_buffers,
            settings.min_block_size,
            settings.truncate_double,
            exclusions.described(),
        ]
        return program_key(
            self.exported,
            settings.backend,
            settings.device,
            settings.options,
            decisive,
            with_modules=bool(exclusions.module_names or exclusions.module_types),
        )


@dataclass(frozen=True)
class CompiledModel:
    """A program and what it was made from.

    Attributes
    ----------
    program : Program
        Ready to be called.
    nodes : dict
        Of the name of each engine to the names of its operators in the model's graph.
    """

    program: Program
    nodes: Mapping[str, Sequence[str]]


def compile_exported(
    source: ModelSource,
    settings: CompileSettings,
    *,
    cache_dir: str | os.PathLike[str] | None,
    steps: Steps,
) -> CompiledModel:
    """Compile an exported model.

    Parameters
    ----------
    source : ModelSource
        The model.
    settings : CompileSettings
        Of the compilation.
    cache_dir : path-like, optional
        As for `trt_rt.compile`.
    steps : Steps
        Told about each step.
    """
    steps.divide()
    built, kernels = built_program(source, settings, cache_dir=cache_dir, steps=steps)
    return CompiledModel(built.load(settings.backend, settings.device, kernels), built.nodes)


def built_program(
    source: ModelSource,
    settings: CompileSettings,
    *,
    cache_dir: str | os.PathLike[str] | None,
    steps: Steps,
) -> tuple[BuiltProgram, Callable[[str], Path] | None]:
    """Return a program, from the cache or built now, and where its kernels are kept; nothing is loaded.

    The parameters are those of :func:`compile_exported`.
    """
    if cache_dir is not None and not isinstance(cache_dir, (str, os.PathLike)):
        raise CompileError(f"cache_dir={cache_dir!r}: give the path of a folder, 'auto', or None")
    folder = cache_folder() if cache_dir == "auto" else cache_dir
    if folder is None:
        graph = source.graph(settings)
        parts = build_program(divide_program(graph, settings, steps), settings, steps)
        return assemble_program(graph, parts, settings), None
    cache = ProgramCache(Path(folder))
    key = source.key(settings)
    with cache.lock(key):
        found = _found(cache, key, source, settings)
        if found is not None:
            return found, cache.kernels_of(key)
        graph = source.graph(settings)
        parts = build_program(divide_program(graph, settings, steps), settings, steps)
        built = assemble_program(graph, parts, settings)
        # What the builder refused for want of memory, say, it may build another time.
        if not parts.is_complete:
            return built, None
        kept = kept_program(built, source.exported, graph.program.mutated_state, settings.backend)
        if kept is None:
            return built, None
        cache.store(key, kept, model=source.name, backend=settings.backend.name)
        return built, cache.kernels_of(key)


def _found(
    cache: ProgramCache, key: str, source: ModelSource, settings: CompileSettings
) -> BuiltProgram | None:
    cached = cache.load(key)
    if cached is None:
        return None
    try:
        found = restored_program(
            cached,
            source.exported,
            source.signature,
            settings.backend,
            settings.device,
            owns_buffers=source.owns_buffers,
        )
    except ArchiveError as error:
        cache.discard(key, error)
        return None
    if settings.require_full_compilation:
        require_full(found.partition)
    return found


def _exported(request: CompileRequest, settings: CompileSettings) -> tuple[ModelSource, torch.nn.Module]:
    """The model as torch.export gives it, and the module that was exported, in the program's precision."""
    model, precision = request.model, settings.options.precision
    name = type(model).__name__
    _check_form(model, request.ir)
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
        if mixed_up := mixed_up_inputs(model):
            raise CompileError(mixed_up)
        return ModelSource(model, name, profiles=request.profiles), model.module(check_guards=False)
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
    return ModelSource(
        program, name, forward_signature(module), examples.opt_shapes, request.profiles
    ), module


def _check_form(model: Any, ir: str) -> None:
    if ir not in get_args(IR):
        hint = ": that is torch.compile(model, backend='trt_rt')" if ir == "torch_compile" else ""
        raise CompileError(f"ir={ir!r}{hint or ': it is one of ' + ', '.join(get_args(IR))}")
    is_script = isinstance(model, torch.jit.ScriptModule)
    if ir != "auto" and is_script != (ir == "ts"):
        form = "TorchScript" if is_script else f"a {type(model).__name__}"
        raise CompileError(f"ir={ir!r}, and the model is {form}: leave out ir, which finds the form out")


def _check(
    compiled: CompiledModel,
    source: ModelSource,
    module: torch.nn.Module,
    settings: CompileSettings,
    check: str,
) -> None:
    graph = source.graph(settings)
    differences = differences_from_eager(
        compiled.program,
        graph.program,
        {name: part_of_nodes(graph, nodes) for name, nodes in compiled.nodes.items()},
        graph.ranges,
        module,
        truncate_double=settings.truncate_double,
    )
    if not differences:
        return
    message = f"the program of {source.name} is not right: {'; '.join(differences)}"
    if check == "eager":
        raise CompileError(message)
    warnings.warn(message, stacklevel=4)
