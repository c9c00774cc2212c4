"""A compilation from a model to a program: export, cache, stages, check."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch.export import ExportedProgram

from trt_rt.compiled.partition import Partition
from trt_rt.compiled.program import Program
from trt_rt.compiler import Profile
from trt_rt.compiler.precision import cast_module
from trt_rt.compiler.profiles import check_profiles
from trt_rt.errors import CompileError
from trt_rt.program.cache import CachedProgram, ProgramCache, cache_folder
from trt_rt.program.cache_key import program_key
from trt_rt.program.checking import differences_from_eager
from trt_rt.program.exporting import export_model, forward_signature
from trt_rt.program.inputs import example_arguments, example_inputs
from trt_rt.program.request import IR, CompileRequest
from trt_rt.program.settings import CompileSettings, settings_of_request
from trt_rt.program.stages import (
    BuiltProgram,
    ModelGraph,
    assemble_program,
    build_program,
    divide_program,
    model_graph,
)
from trt_rt.program.steps import Steps, shown_steps
from trt_rt.program.torchscript import module_of_torchscript

__all__ = ["CompiledModel", "compile_exported", "compile_model"]

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
        model = _exported(request, settings)
        sizes: dict[str, Any] = {
            "signature": model.signature,
            "opt_shapes": model.opt_shapes,
            "profiles": request.profiles,
        }
        if request.dryrun:
            graph = model_graph(model.program, truncate_double=settings.truncate_double, **sizes)
            steps.divide()
            partition = divide_program(graph, settings, steps).partition
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
                steps.check()
                _check(compiled, model, request.check, truncate_double=settings.truncate_double)
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
    steps: Steps,
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
    steps : Steps
        Told about each step.
    owns_buffers : bool
        Whether the program gets copies of the buffers that it writes to, or writes to the model's.
    signature, opt_shapes, profiles
        As for :func:`model_graph`.
    """
    steps.divide()
    graph = model_graph(
        exported,
        signature=signature,
        opt_shapes=opt_shapes,
        profiles=profiles,
        owns_buffers=owns_buffers,
        truncate_double=settings.truncate_double,
    )
    plans, kernels = _built(graph, settings, cache_dir, name, steps)
    built = assemble_program(graph, plans, settings)
    return CompiledModel(built.load(settings.backend, settings.device, kernels), graph, built)


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
    steps: Steps,
) -> tuple[CachedProgram, Callable[[str], Path] | None]:
    """The engines, from the cache or built now, and where their kernels are kept."""
    if cache_dir is not None and not isinstance(cache_dir, (str, os.PathLike)):
        raise CompileError(f"cache_dir={cache_dir!r}: give the path of a folder, 'auto', or None")
    folder = cache_folder() if cache_dir == "auto" else cache_dir
    if folder is None:
        return build_program(divide_program(graph, settings, steps), settings, steps)[0], None
    cache = ProgramCache(Path(folder))
    decisive = [graph.ranges.described(), settings.min_block_size, settings.exclusions.described()]
    key = program_key(graph.program, settings.backend, settings.device, settings.options, decisive)
    with cache.lock(key):
        found = cache.load(key)
        if found is not None:
            return found, cache.kernels_of(key)
        built, is_complete = build_program(divide_program(graph, settings, steps), settings, steps)
        # What the builder refused for want of memory, say, it may build another time.
        if is_complete:
            cache.store(key, built, model=name, backend=settings.backend.name)
        return built, cache.kernels_of(key) if is_complete else None


def _check_form(model: Any, ir: str) -> None:
    if ir not in get_args(IR):
        hint = ": that is torch.compile(model, backend='trt_rt')" if ir == "torch_compile" else ""
        raise CompileError(f"ir={ir!r}{hint or ': it is one of ' + ', '.join(get_args(IR))}")
    is_script = isinstance(model, torch.jit.ScriptModule)
    if ir != "auto" and is_script != (ir == "ts"):
        form = "TorchScript" if is_script else f"a {type(model).__name__}"
        raise CompileError(f"ir={ir!r}, and the model is {form}: leave out ir, which finds the form out")


def _check(compiled: CompiledModel, model: _Exported, check: str, *, truncate_double: bool) -> None:
    graph = compiled.graph
    differences = differences_from_eager(
        compiled.program,
        graph.program,
        compiled.built.parts,
        graph.ranges,
        model.module,
        truncate_double=truncate_double,
    )
    if not differences:
        return
    message = f"the program of {model.name} is not right: {'; '.join(differences)}"
    if check == "eager":
        raise CompileError(message)
    warnings.warn(message, stacklevel=4)
