"""TorchScript modules, converted to what torch.export takes."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from trt_rt.errors import CompileError
from trt_rt.reference.example_tensors import separate_examples

__all__ = ["module_of_torchscript"]


def module_of_torchscript(
    script: torch.jit.ScriptModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.nn.Module:
    """Return a module that computes what a TorchScript module does, and that torch.export can export.

    Parameters
    ----------
    script : torch.jit.ScriptModule
        Traced, scripted or loaded. Its control flow must not depend on values.
    args, kwargs : tuple, dict
        Example arguments. Sizes that vary should be 2 or more.

    Raises
    ------
    CompileError
        PyTorch's converter cannot convert it.
    """
    if kwargs:
        raise CompileError("a TorchScript module is compiled with positional example inputs only")
    try:
        from torch._export.converter import TS2EPConverter
    except ImportError as error:
        raise CompileError(
            f"PyTorch {torch.__version__} has no converter of TorchScript: compile the Python model"
        ) from error
    with warnings.catch_warnings(), torch.no_grad():
        # Of TorchScript's age; whoever has such a module knows.
        warnings.simplefilter("ignore")
        try:
            args, _, _ = separate_examples(script, args, None, None)
            converted = TS2EPConverter(script, args, kwargs).convert()
            return converted.module(check_guards=False)
        except Exception as error:  # the converter raises whatever its passes meet
            name = getattr(script, "original_name", type(script).__name__)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CompileError(
                f"PyTorch's converter cannot convert the TorchScript module {name}: {lines[0]}. Compile the "
                "Python model, which torch.export reads"
            ) from error
