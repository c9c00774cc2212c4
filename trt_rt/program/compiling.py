"""``trt_rt.compile``: from a model to a program."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, overload

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
from trt_rt.program.call_function import CallFunction, write_call_function
from trt_rt.program.exporting import (
    ProgramGraph,
    export_model,
    forward_signature,
    model_device,
    program_graph,
)
from trt_rt.program.inputs import example_inputs
from trt_rt.program.part import Part
from trt_rt.program.part_builder import PartBuilder, part_builder
from trt_rt.program.partition import Partition
from trt_rt.program.partitioning import Divided, divide
from trt_rt.program.program import Program
from trt_rt.program.size_ranges import SizeRanges
from trt_rt.program.sizes import read_sizes_from_inputs
from trt_rt.program.support import Exclusions, Support

__all__ = ["BuiltProgram", "CompileSettings", "DividedProgram", "build_program", "compile", "divide_program"]

DEFAULT_MIN_BLOCK_SIZE = 3
"""docs/compile.md says how it was measured."""


@dataclass(frozen=True)
class CompileSettings:
    """What a compilation may be asked for besides the model and its inputs; see :func:`compile`."""

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
        return describe_partition(
            self.graph.module, parts, self.divided.reasons, self.builder.backend.name
        )


@dataclass
class BuiltProgram:
    """All that a program consists of, before its engines are loaded.

    Attributes
    ----------
    call : CallFunction
        The code.
    plans : dict
        Of the name of each engine to its plan.
    state : torch.nn.Module
        Has the weights that the code names.
    partition : Partition
        What runs where.
    """

    call: CallFunction
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
    read_sizes_from_inputs(graph.module.graph, graph.ranges)
    opt_shapes = opt_shapes or [
        tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else None for leaf in graph.examples
    ]
    ranges = SizeRanges(graph.module.graph, graph.ranges, graph.examples, opt_shapes, profiles)
    builder = part_builder(settings.backend, ranges, settings.options, settings.device)
    support = Support(settings.device, settings.exclusions, builder.supports)
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
            divided.reasons.update(dict.fromkeys(prepared.part.names, f"the builder refuses its part: {error}"))
    named = _named(program.graph, parts)
    partition = describe_partition(
        program.graph.module, named, divided.reasons, program.builder.backend.name
    )
    if settings.require_full_compilation:
        _require_full(partition)
    graph = program_with_engines(program.graph.module, named)
    call = write_call_function(program.graph, graph, program.ranges)
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
        f"{step.operator}{f' [{step.source}]' if step.source else ''}: {step.reason}"
        for step in left
    )
    raise CompileError(f"require_full_compilation=True, and PyTorch would run {reasons}")


@overload
def compile(
    model: torch.nn.Module | ExportedProgram, *, dryrun: Literal[False] = False, **keywords: Any
) -> Program: ...
@overload
def compile(
    model: torch.nn.Module | ExportedProgram, *, dryrun: Literal[True], **keywords: Any
) -> Partition: ...


def compile(
    model: torch.nn.Module | ExportedProgram,
    *,
    inputs: Sequence[Any] | None = None,
    arg_inputs: Sequence[Any] | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    dynamic_shapes: DynamicShapes = None,
    profiles: Sequence[Profile] | None = None,
    precision: Precision = "strong",
    backend: str | Backend = "auto",
    torch_executed_ops: Iterable[Any] = (),
    torch_executed_modules: Iterable[Any] = (),
    min_block_size: int = DEFAULT_MIN_BLOCK_SIZE,
    require_full_compilation: bool = False,
    dryrun: bool = False,
    **build_settings: Any,
) -> Program | Partition:
    """Compile a model: engines where a backend can run its operators, PyTorch where it cannot.

    Parameters
    ----------
    model : torch.nn.Module or torch.export.ExportedProgram
        On the device where the program is to run. A module is compiled in the mode that it is in: call
        ``eval()`` first. It is not changed, and shares the weights that PyTorch operators read.
    inputs, arg_inputs : sequence, optional
        Example positional arguments of a module: tensors or `trt_rt.Input`, also nested in lists, tuples and
        dicts; numbers, strings and None, which become constants. Two names for the same.
    kwarg_inputs : mapping, optional
        Example arguments by keyword.
    dynamic_shapes : dict, tuple or list, optional
        Which dimensions vary, as ``torch.export.export`` takes it. Default: what `trt_rt.Input` and
        ``torch._dynamo.mark_dynamic`` say.
    profiles : sequence of Profile, optional
        Optimization profiles: for each dynamic input, by its name in the exported program, the ``(min, opt,
        max)`` shapes. Default: one, of the whole range of each size.
    precision : {"strong", "fp32", "fp16", "bf16"}
        As for `trt_rt.build`.
    backend : str or Backend
        Whose engines run the program. "auto": on a GPU the first of tensorrt, tensorrt_rtx and reference that
        can build here; on a CPU the reference.
    torch_executed_ops : iterable
        Operators that PyTorch is to run: ``torch.ops.aten.relu``, or names such as ``"aten.relu.default"``.
    torch_executed_modules : iterable
        Submodules that PyTorch is to run: qualified names or classes.
    min_block_size : int
        A part with fewer operators than this stays in PyTorch, unless it is the whole model.
    require_full_compilation : bool
        Whether an operator that would stay in PyTorch, other than views and the writing back of changed inputs
        and buffers, is an error.
    dryrun : bool
        Whether to stop before anything is built. The partition is returned and, in a terminal, printed.
    **build_settings
        Options of `trt_rt.build` for every engine: `workspace_bytes`, `optimization_level`, ...

    Returns
    -------
    Program or Partition
        A module that is called as the model is; with `dryrun` the partition.

    Raises
    ------
    CompileError
        The model cannot be exported, inputs, ranges or settings contradict each other, or PyTorch would run an
        operator and must not. The message names the line of the model where it is known.
    BackendError
        The backend is not installed, cannot build here, or cannot run engines on the model's device.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    >>> program = trt_rt.compile(model, inputs=[torch.zeros(2, 4)], backend="reference")
    >>> program(torch.zeros(2, 4)).shape
    torch.Size([2, 2])
    >>> print(program.partition.summary())
    1 engine of reference with 3 operators, 0 operators in PyTorch
    """
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
            f"cannot compile a {type(model).__name__}: give a torch.nn.Module or a torch.export.ExportedProgram"
        )
    divided = divide_program(
        exported, settings, signature=signature, opt_shapes=opt_shapes, profiles=profiles
    )
    if dryrun:
        partition = divided.partition
        if sys.stdout.isatty():
            print(partition)
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


_PARAMETERS = tuple(compile.__kwdefaults__ or ())


def _choose_backend(wanted: str | Backend, device: torch.device) -> Backend:
    if wanted == "auto" and device.type == "cpu":
        # TensorRT-RTX would build here, and could not run what it has built.
        return load("reference")
    return choose_builder(wanted)
