"""The build of one plan: choose a builder, export the model, cast it, build."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.export import ExportedProgram

from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend import Backend
from trt_rt.backend.atomic_file import check_writable
from trt_rt.compiler.builder_choice import choose_builder
from trt_rt.compiler.network_io import reference_io
from trt_rt.compiler.onnx_export import DynamicShapes, export_onnx, export_program
from trt_rt.compiler.onnx_model import OnnxModel
from trt_rt.compiler.options import BuildOptions, Precision, TimingCache
from trt_rt.compiler.precision import cast_module, program_dtypes, weak_typing_flag
from trt_rt.compiler.profiles import (
    Profile,
    check_against_export,
    check_profiles,
    derive_profile,
    tensor_input_names,
)
from trt_rt.compiler.tensorrt_builder import build_from_onnx
from trt_rt.errors import CompileError

if TYPE_CHECKING:
    import onnx

__all__ = ["BuiltPlan", "Model", "build", "build_plan"]

Model: TypeAlias = (
    "torch.nn.Module | ExportedProgram | str | os.PathLike[str] | bytes | bytearray | memoryview "
    "| onnx.ModelProto"
)
"""The forms of a model that a plan can be built from."""


@dataclass(frozen=True)
class BuiltPlan:
    """A plan, its I/O tensors, and the time that it took.

    Attributes
    ----------
    plan : bytes
        The serialized engine.
    backend : str
        The backend that built it.
    io : tuple of IOTensor
        The I/O tensors of the network that the builder was given, inputs first.
    export_seconds : float
        Time for the export from PyTorch to the form that the builder reads; 0 for an ONNX model.
    build_seconds : float
        Time for parser and builder.
    """

    plan: bytes
    backend: str
    io: tuple[IOTensor, ...]
    export_seconds: float
    build_seconds: float


def build(
    model: Model,
    arg_inputs: Sequence[Any] | None = None,
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    dynamic_shapes: DynamicShapes = None,
    profiles: Sequence[Profile] | None = None,
    precision: Precision = "strong",
    backend: str | Backend = "auto",
    workspace_bytes: int | None = None,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    refittable: bool = False,
    weight_streaming: bool = False,
    optimization_level: int | None = None,
    timing_cache: TimingCache | None = None,
    compute_capabilities: Sequence[tuple[int, int]] = (),
    progress: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
) -> bytes:
    """Build a plan: a serialized engine, for :class:`trt_rt.TRTModule`, :class:`trt_rt.Engine` or a file.

    The model goes through ``torch.export``, ``torch.onnx.export``, and TensorRT's ONNX parser and builder.

    Parameters
    ----------
    model : torch.nn.Module, torch.export.ExportedProgram, path, bytes or onnx.ModelProto
        The network: a module in evaluation mode, a program that torch.export made of one, or an ONNX model. A
        str is the path of an ONNX file, whose external data must be in the same folder.
    arg_inputs : sequence, optional
        Example inputs. Only a module takes them. Dimensions that vary should be 2 or more here, because
        torch.export treats 0 and 1 as constants.
    kwarg_inputs : mapping, optional
        Example inputs of a module by keyword.
    dynamic_shapes : dict, tuple or list, optional
        Which dimensions of a module's inputs vary, as ``torch.export.export`` takes it.
    profiles : sequence of Profile, optional
        For each optimization profile and each input with dynamic dimensions, the ``(min, opt, max)`` shapes;
        for a shape tensor, its values. Default: one profile with the smallest and the largest sizes of
        `dynamic_shapes`, tuned for the shapes of the example inputs. An ONNX model with dynamic dimensions
        needs profiles.
    precision : {"strong", "fp32", "fp16", "bf16"}
        The precision of the engine's arithmetic. "strong" keeps the dtypes of the model. With the others, a
        module is cast, and its inputs and outputs keep their dtypes. An exported program or ONNX model of
        another precision can be built only by TensorRT 10, which has weakly typed networks. On GPUs with
        TF32, TensorRT uses it for float32 by default.
    backend : str or Backend
        "tensorrt", "tensorrt_rtx", "reference"; "auto" is the first of these that can build here.
    workspace_bytes : int, optional
        The most scratch memory, in bytes, that a layer may use. Default: TensorRT's.
    version_compatible : bool
        Whether later versions of TensorRT, and the lean runtime, can run the plan.
    hardware_compatible : bool
        Whether every GPU from Ampere on can run the plan, and not only the kind that built it.
    refittable : bool
        Whether weights can be replaced in the engine.
    weight_streaming : bool
        Whether weights may stay in host memory until they are needed.
    optimization_level : int, optional
        How long to search for faster kernels, from 0 to 5. Default: TensorRT's (3).
    timing_cache : path or bytearray, optional
        Measured timings. They are read, used, and written back with those of this build. A cache that
        TensorRT refuses is ignored, with a logged warning.
    compute_capabilities : sequence of (int, int)
        The GPUs that can run the plan, such as ``[(8, 6), (12, 0)]``. Only TensorRT-RTX has this option.
    progress : bool, optional
        Whether to show a progress bar on stderr. Default: only if stderr is a terminal and rich is installed.
    input_names, output_names : sequence of str, optional
        Names of the I/O tensors of a module or exported program, in order. Default: the names of
        ``forward``'s parameters, and ``output0``, ``output1``, ...
    device : {"cpu", "cuda"}, optional
        The device that runs a plan of the reference backend. Default: the device of the model.

    Returns
    -------
    bytes
        The plan. ``trt_rt.compiler.write_atomically`` saves it.

    Raises
    ------
    CompileError
        The model cannot be exported, parsed or built; the backend lacks an option, or an option contradicts
        another; an input or a profile does not fit. The message says what to do.
    OSError
        The timing cache cannot be read or written.
    BackendError
        The backend is not installed, or cannot build on this machine.
    KeyboardInterrupt
        After Ctrl-C, once the builder has stopped.

    Notes
    -----
    The reference backend builds from modules and exported programs. It honours `profiles`, `weight_streaming`
    and `refittable`. It ignores the options that tell TensorRT how to choose kernels and for which GPU:
    `workspace_bytes`, `version_compatible`, `hardware_compatible`, `optimization_level`, `timing_cache` and
    `compute_capabilities`.

    Examples
    --------
    >>> import torch, trt_rt
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()

    A plan for batches of 1 to 8, with the best backend that can build on this machine:

    >>> batch = torch.export.Dim("batch", min=1, max=8)
    >>> plan = trt_rt.build(network, (torch.zeros(2, 4),), dynamic_shapes=({0: batch},))

    The reference backend runs anywhere. `trt_rt.TRTModule` runs the plan:

    >>> plan = trt_rt.build(
    ...     network, (torch.zeros(2, 4),), dynamic_shapes=({0: batch},), backend="reference"
    ... )
    >>> module = trt_rt.TRTModule(plan, device="cpu")
    >>> x = torch.randn(5, 4)
    >>> torch.allclose(module(x), network(x))
    True

    Save the plan. An interrupted write leaves no half a file:

    >>> trt_rt.compiler.write_atomically("network.plan", plan)
    >>> trt_rt.Engine.load("network.plan", device="cpu").name
    'network.plan'
    """
    options = BuildOptions(
        precision=precision,
        workspace_bytes=workspace_bytes,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        refittable=refittable,
        weight_streaming=weight_streaming,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        compute_capabilities=compute_capabilities,
        progress=progress,
    )
    return build_plan(
        model,
        arg_inputs,
        kwarg_inputs=kwarg_inputs,
        dynamic_shapes=dynamic_shapes,
        profiles=profiles,
        backend=backend,
        input_names=input_names,
        output_names=output_names,
        device=device,
        options=options,
    ).plan


def build_plan(
    model: Model,
    arg_inputs: Sequence[Any] | None = None,
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    dynamic_shapes: DynamicShapes = None,
    profiles: Sequence[Profile] | None = None,
    backend: str | Backend = "auto",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    options: BuildOptions | None = None,
) -> BuiltPlan:
    """Build a plan, and return it with its I/O tensors and timings; :func:`build` explains the parameters."""
    options = options or BuildOptions()
    check_profiles(profiles)
    if device is not None and str(device).partition(":")[0] not in ("cpu", "cuda"):
        raise CompileError(f"device={str(device)!r}: a plan is built for 'cpu' or 'cuda'")
    if isinstance(options.timing_cache, (str, os.PathLike)):
        check_writable(options.timing_cache)  # before the build, which may take minutes
    if OnnxModel.is_source(model):
        _refuse_given(
            "an ONNX model",
            arg_inputs=arg_inputs,
            kwarg_inputs=kwarg_inputs,
            dynamic_shapes=dynamic_shapes,
            input_names=input_names,
            output_names=output_names,
        )
        builder = choose_builder(backend, for_onnx=True)
        onnx_model = OnnxModel(model)
        weak_flag = weak_typing_flag(builder, options, onnx_model.floating_dtypes(), str(onnx_model))
        return _build_tensorrt(onnx_model, builder, profiles or (), options, weak_flag, export_seconds=0.0)
    builder = choose_builder(backend)
    started = perf_counter()
    weak_flag = None
    name = type(model).__name__
    if isinstance(model, ExportedProgram):
        _refuse_given(
            "an exported program",
            arg_inputs=arg_inputs,
            kwarg_inputs=kwarg_inputs,
            dynamic_shapes=dynamic_shapes,
        )
        # Slow to import, so that `import trt_rt` does not.
        from trt_rt.reference.example_tensors import mixed_up_inputs

        if mixed_up := mixed_up_inputs(model):
            raise CompileError(mixed_up)
        program = model
        weak_flag = weak_typing_flag(builder, options, program_dtypes(program), name)
    elif isinstance(model, torch.nn.Module):
        if arg_inputs is None and kwarg_inputs is None:
            raise CompileError(f"building {name} needs example inputs: give arg_inputs, kwarg_inputs or both")
        cast = cast_module(model, options.precision)
        program = export_program(cast, arg_inputs or (), kwarg_inputs, dynamic_shapes=dynamic_shapes)
    else:
        raise CompileError(
            f"cannot build from a {name}: give a torch.nn.Module, a torch.export.ExportedProgram, or an ONNX "
            "model (its path, its bytes or a ModelProto)"
        )
    exported_names = tensor_input_names(program)
    names = list(input_names) if input_names is not None else exported_names
    _check_names("input_names", names, len(exported_names))
    if output_names is not None:
        _check_names("output_names", output_names, len(program.graph_signature.user_outputs))
    if builder.name == "reference":
        export_seconds = perf_counter() - started
        return _build_reference(program, profiles, names, output_names, device, options, export_seconds)
    if profiles is None:
        derived = derive_profile(program, names)
        profiles = [derived] if derived else []
    check_against_export(profiles, program, names)
    onnx_model = OnnxModel(
        export_onnx(
            program, input_names=names, output_names=output_names or _output_names(program), name=name
        )
    )
    return _build_tensorrt(
        onnx_model, builder, profiles, options, weak_flag, export_seconds=perf_counter() - started
    )


def _build_tensorrt(
    model: OnnxModel,
    builder: Backend,
    profiles: Sequence[Profile],
    options: BuildOptions,
    weak_flag: Any,
    *,
    export_seconds: float,
) -> BuiltPlan:
    started = perf_counter()
    built = build_from_onnx(model, builder, profiles=profiles, options=options, weak_flag=weak_flag)
    return BuiltPlan(built.plan, builder.name, built.io, export_seconds, perf_counter() - started)


def _build_reference(
    program: ExportedProgram,
    profiles: Sequence[Profile] | None,
    input_names: Sequence[str],
    output_names: Sequence[str] | None,
    device: str | torch.device | None,
    options: BuildOptions,
    export_seconds: float,
) -> BuiltPlan:
    # Slow to import, so that `import trt_rt` does not.
    from trt_rt import reference

    started = perf_counter()
    plan = reference.build(
        program,
        profiles=profiles,
        input_names=input_names,
        output_names=output_names,
        device=_device_type(program) if device is None else device,
        streamable_weights=options.weight_streaming,
        refittable=options.refittable,
    )
    return BuiltPlan(plan, "reference", reference_io(plan), export_seconds, perf_counter() - started)


def _check_names(argument: str, names: Sequence[str], count: int) -> None:
    if len(names) != count or len(set(names)) != count:
        raise CompileError(
            f"{argument}={list(names)}: the model has {count}, and each needs a name of its own"
        )


def _refuse_given(what: str, **arguments: object) -> None:
    """Raise if an argument that only a module can use is given with another kind of model."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise CompileError(f"{what} has its own inputs, so {' and '.join(given)} cannot be given with it")


def _output_names(program: ExportedProgram) -> list[str]:
    """Return the default names of outputs, which are those of the reference backend."""
    return [f"output{number}" for number in range(len(program.graph_signature.user_outputs))]


def _device_type(program: ExportedProgram) -> str:
    tensors = [*program.state_dict.values(), *torch.utils._pytree.tree_leaves(program.example_inputs)]
    return "cuda" if any(isinstance(tensor, torch.Tensor) and tensor.is_cuda for tensor in tensors) else "cpu"
