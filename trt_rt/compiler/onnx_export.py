"""PyTorch to ONNX, in memory, through ``torch.export`` and ``torch.onnx``: PyTorch's own converters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.export import ExportedProgram

from trt_rt.errors import CompileError

if TYPE_CHECKING:
    import onnx

__all__ = ["DynamicShapes", "export_onnx", "export_program"]

DynamicShapes: TypeAlias = "dict[str, Any] | tuple[Any, ...] | list[Any] | None"
"""Which dimensions of a module's inputs vary, as ``torch.export.export`` takes it."""

_PROTOBUF_LIMIT_BYTES = 2**31 - 1
"""A protobuf message, and so an ONNX model with its weights inside, cannot be larger."""


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
        Put it in evaluation mode first: its mode is not changed here.
    arg_inputs : sequence
        Example inputs: their dtypes, ranks and static dimensions become the program's.
    kwarg_inputs : mapping, optional
        Example inputs by keyword.
    dynamic_shapes : dict, tuple or list, optional
        Which dimensions of the inputs vary, as ``torch.export.export`` takes it. Default: none.

    Raises
    ------
    CompileError
        PyTorch cannot export the module; its own exception is the cause.
    """
    try:
        with _without_warnings_of_pytorch():
            return torch.export.export(
                module, tuple(arg_inputs), dict(kwarg_inputs or {}), dynamic_shapes=dynamic_shapes
            )
    except Exception as error:  # the module's own forward runs here and may raise anything
        raise CompileError(
            f"torch.export cannot export {type(module).__name__}: {_root_cause(error)}"
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
        What to convert.
    input_names, output_names : sequence of str, optional
        Names of the I/O tensors. Default: the names in the exported program.
    name : str
        What messages call the model.

    Returns
    -------
    onnx.ModelProto
        The model. The metadata of its nodes has the lines of the user's program.

    Raises
    ------
    CompileError
        The packages onnx and onnxscript are missing, PyTorch cannot express the model in ONNX, or its
        weights are over the 2 GiB that an ONNX model in memory can hold. PyTorch's own exception is the
        cause.
    """
    weight_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    if weight_bytes > _PROTOBUF_LIMIT_BYTES:
        raise CompileError(
            f"the weights of {name} take {weight_bytes:,} bytes, and an ONNX model in memory holds at most "
            f"{_PROTOBUF_LIMIT_BYTES:,}; export it with fewer or smaller weights (float16, for one)"
        )
    try:
        with _without_warnings_of_pytorch(), _without_torchvision_notes():
            onnx_program: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=input_names, output_names=output_names
            )
    except ImportError as error:
        raise CompileError(
            f"exporting {name} to ONNX needs the packages onnx and onnxscript ({error}); "
            "install them with: pip install 'trt_rt[onnx]'"
        ) from error
    except torch.onnx.OnnxExporterError as error:
        raise CompileError(f"PyTorch cannot express {name} in ONNX: {_root_cause(error)}") from error
    proto: onnx.ModelProto = onnx_program.model_proto
    return proto


def _root_cause(error: BaseException) -> str:
    """Return type and first line of the exception that `error` was first raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _without_warnings_of_pytorch() -> Iterator[None]:
    """Silence what the exporters say of PyTorch's own code.

    The user can do nothing about it. As an error, which is what many test suites make of warnings, it would
    end the export.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(torch|copyreg)(\..*)?$")
        # Attributed to contextlib; the weights of torch.nn.LSTM, which it puts together when it is called.
        warnings.filterwarnings("ignore", message=r".*\._flat_weights.*assigned during export")
        yield


@contextmanager
def _without_torchvision_notes() -> Iterator[None]:
    """Silence the warning that is logged for each operator of torchvision where that is not installed."""
    registration_log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def says_something_else(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    registration_log.addFilter(says_something_else)
    try:
        yield
    finally:
        registration_log.removeFilter(says_something_else)
