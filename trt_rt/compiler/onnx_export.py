"""The export from PyTorch to ONNX in memory, with PyTorch's own ``torch.export`` and ``torch.onnx``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.export import ExportedProgram

from trt_rt._core.silent_log import FAKE_TENSOR_LOG, silent_log
from trt_rt.compiler.onnx_registry import kept_registry
from trt_rt.errors import CompileError

if TYPE_CHECKING:
    import onnx

__all__ = ["DynamicShapes", "convert_program", "export_onnx", "export_program", "root_cause"]

DynamicShapes: TypeAlias = "dict[str, Any] | tuple[Any, ...] | list[Any] | None"
"""The dimensions of a module's inputs that vary, in the form that ``torch.export.export`` takes."""

_PROTOBUF_LIMIT_BYTES = 2**31 - 1
"""The largest protobuf message, and so the largest ONNX model that contains its weights."""


def export_program(
    module: torch.nn.Module,
    arg_inputs: Sequence[Any],
    kwarg_inputs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: DynamicShapes = None,
) -> ExportedProgram:
    """Export a module with ``torch.export``.

    Parameters
    ----------
    module : torch.nn.Module
        The module, in evaluation mode: this function does not change its mode.
    arg_inputs : sequence
        Example inputs: their dtypes, ranks and static dimensions become the program's.
    kwarg_inputs : mapping, optional
        Example inputs by keyword.
    dynamic_shapes : dict, tuple or list, optional
        The dimensions of the inputs that vary, as ``torch.export.export`` takes them. Default: none.

    Raises
    ------
    CompileError
        PyTorch cannot export the module; its own exception is the cause.
    """
    # Slow to import, so that `import trt_rt` does not.
    from trt_rt.reference.example_tensors import separate_examples

    try:
        with _without_warnings_of_pytorch(), silent_log(FAKE_TENSOR_LOG):
            args, kwargs, shapes = separate_examples(module, arg_inputs, kwarg_inputs, dynamic_shapes)
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # the forward of the module runs here and may raise anything
        raise CompileError(
            f"torch.export cannot export {type(module).__name__}: {root_cause(error)}"
        ) from error


def export_onnx(
    program: ExportedProgram,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    name: str = "the exported program",
) -> onnx.ModelProto:
    """Convert an exported program to ONNX in memory, weights included; no file is written.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program.
    input_names, output_names : sequence of str, optional
        Names of the I/O tensors. Default: the names in the exported program.
    name : str
        The name of the model in messages.

    Returns
    -------
    onnx.ModelProto
        The model. The metadata of its nodes names the lines of the user's program.

    Raises
    ------
    CompileError
        The packages onnx and onnxscript are missing, PyTorch cannot express the model in ONNX, or its
        weights are over the 2 GiB that an ONNX model in memory can hold. PyTorch's own exception is the
        cause.
    """
    onnx_program = convert_program(program, input_names=input_names, output_names=output_names, name=name)
    proto: onnx.ModelProto = onnx_program.model_proto
    return proto


def convert_program(
    program: ExportedProgram,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    name: str = "the exported program",
    decompose: bool = True,
) -> Any:
    """Convert as :func:`export_onnx` does, and return torch's ``ONNXProgram``, which shares the weights.

    Without `decompose`, every operator must have an ONNX function, and the program is changed: decomposing
    operators traces the program once more, which takes longer than everything else.
    """
    weight_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    if weight_bytes > _PROTOBUF_LIMIT_BYTES:
        raise CompileError(
            f"the weights of {name} take {weight_bytes:,} bytes, and an ONNX model in memory holds at most "
            f"{_PROTOBUF_LIMIT_BYTES:,}; export it with fewer or smaller weights (float16, for one)"
        )
    try:
        with _without_warnings_of_pytorch(), kept_registry(decompose=decompose):
            return torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=input_names, output_names=output_names
            )
    except ImportError as error:
        raise CompileError(
            f"exporting {name} to ONNX needs the packages onnx and onnxscript ({error}); "
            "install them with: pip install 'trt_rt[onnx]'"
        ) from error
    except torch.onnx.OnnxExporterError as error:
        raise CompileError(f"PyTorch cannot express {name} in ONNX: {root_cause(error)}") from error


def root_cause(error: BaseException) -> str:
    """Return type and first line of the exception that `error` was first raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _without_warnings_of_pytorch() -> Iterator[None]:
    """Ignore the warnings of the exporters about PyTorch's own code.

    The user cannot act on them. Where warnings are errors, as in many test suites, they would end the export.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(torch|copyreg)(\..*)?$")
        # torch.nn.LSTM assembles its weights when it is called. The warning is attributed to contextlib.
        warnings.filterwarnings("ignore", message=r".*\._flat_weights.*assigned during export")
        yield
