"""``trt_rt.compile``: from a model to a program."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, overload

import torch
from torch.export import ExportedProgram

from trt_rt.backend import Backend
from trt_rt.compiled.partition import Partition
from trt_rt.compiled.program import Program
from trt_rt.compiler import Precision, Profile
from trt_rt.compiler.onnx_export import DynamicShapes
from trt_rt.program.request import DEFAULT_MIN_BLOCK_SIZE, IR, CompileRequest

__all__ = ["compile"]


@overload
def compile(
    model: torch.nn.Module | ExportedProgram,
    ir: IR = "auto",
    *,
    dryrun: Literal[False] = False,
    **keywords: Any,
) -> Program: ...
@overload
def compile(
    model: torch.nn.Module | ExportedProgram, ir: IR = "auto", *, dryrun: Literal[True], **keywords: Any
) -> Partition: ...
@overload
def compile(
    model: torch.jit.ScriptModule, ir: Mapping[str, Any], *, dryrun: Literal[False] = False, **keywords: Any
) -> torch.jit.ScriptModule: ...


def compile(
    model: torch.nn.Module | ExportedProgram,
    ir: IR | Mapping[str, Any] = "auto",
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
    truncate_double: bool = False,
    check: Literal["eager", "warn"] | None = None,
    dryrun: bool = False,
    cache_dir: str | os.PathLike[str] | None = "auto",
    progress: bool | None = None,
    **build_settings: Any,
) -> Program | Partition | torch.jit.ScriptModule:
    """Compile a model: engines where a backend can run its operators, PyTorch where it cannot.

    Parameters
    ----------
    model : torch.nn.Module, torch.jit.ScriptModule or torch.export.ExportedProgram
        On the device where the program is to run. A module is compiled in the mode that it is in: call
        ``eval()`` first. It is not changed, and shares the weights that PyTorch operators read. A TorchScript
        module is converted by PyTorch; its control flow must not depend on values.
    ir : {"auto", "dynamo", "ts"}
        The form of the model, for callers that want to be sure of it: "dynamo" is a module or an exported
        program, which torch.export reads, and "ts" a TorchScript module. "auto" takes all of these. For
        ``torch.compile``, call ``torch.compile(model, backend="trt_rt")``. A dict in this place has TRTorch's
        settings for a TorchScript module: ``{"input_shapes": [{"min": [1, 3, 32, 32], "opt": [4, 3, 32, 32],
        "max": [8, 3, 32, 32]}], "op_precision": torch.half}``. The result is then a ScriptModule.
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
        Whether an operator that would stay in PyTorch, other than views and the writing back of changed
        inputs and buffers, is an error.
    truncate_double : bool
        Whether to compute in float32 what the model computes in float64. Arguments, results and tensors that
        the model writes to keep their dtypes. Otherwise operators on float64 stay in PyTorch.
    check : {"eager", "warn"}, optional
        Whether to compare every engine and the whole program with eager PyTorch, at the example inputs and,
        with sizes that vary, at the smallest and largest. A difference is an error, or a warning.
    dryrun : bool
        Whether to stop before anything is built. The partition is returned and, in a terminal, printed.
    cache_dir : path-like, optional
        The folder in which compiled programs are kept. "auto": ``$TRT_RT_CACHE_DIR``, or one under the user's
        cache folder. None: programs are not kept.
    progress : bool, optional
        Whether to show the step that goes on, on stderr. Default: if that is a terminal and rich is
        installed.
    **build_settings
        Options of `trt_rt.build` for every engine: `workspace_bytes`, `optimization_level`, ...

    Returns
    -------
    Program, Partition or torch.jit.ScriptModule
        A module that is called as the model is; with `dryrun` the partition. With TRTorch's settings a module
        that ``torch.jit.save`` takes, for programs that import trt_rt before ``torch.jit.load``.

    Raises
    ------
    CompileError
        The model cannot be exported, inputs, ranges or settings contradict each other, or PyTorch would run
        an operator and must not. The message names the line of the model where it is known.
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
    # These import sympy, which takes longer than all else of trt_rt.
    from trt_rt.program.pipeline import compile_model
    from trt_rt.program.trtorch import compile_torchscript

    request = CompileRequest(
        model=model,
        ir="ts" if isinstance(ir, Mapping) else ir,
        inputs=inputs,
        arg_inputs=arg_inputs,
        kwarg_inputs=kwarg_inputs,
        dynamic_shapes=dynamic_shapes,
        profiles=profiles,
        precision=precision,
        backend=backend,
        torch_executed_ops=torch_executed_ops,
        torch_executed_modules=torch_executed_modules,
        min_block_size=min_block_size,
        require_full_compilation=require_full_compilation,
        truncate_double=truncate_double,
        check=check,
        dryrun=dryrun,
        cache_dir=cache_dir,
        progress=progress,
        build_settings=build_settings,
    )
    return compile_torchscript(request, ir) if isinstance(ir, Mapping) else compile_model(request)
