"""The control that lets TensorRT allocate every output."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from trt_rt.module.find_engines import as_module
from trt_rt.module.mode_manager import ModeManager
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["enable_output_allocator"]


@takes_compiled_module
def enable_output_allocator(module: torch.nn.Module | ExportedProgram) -> ModeManager[torch.nn.Module]:
    """Let TensorRT allocate every output, with its exact size.

    TensorRT always allocates outputs whose size depends on data. This control is for all other outputs.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.

    Returns
    -------
    ModeManager
        A context manager. ``as`` binds the module to call. Entering raises ValueError if CUDA graphs are on
        for an engine.

    Raises
    ------
    ValueError
        There is no engine in `module`.
    TypeError
        `module` is neither a module nor a program.

    Notes
    -----
    PyTorch allocates the memory, and a result owns all of it: nothing is copied or cut off. If memory runs
    out, the call raises torch.OutOfMemoryError or MemoryError, and the module stays usable. Inside the
    context, ``out=`` is refused and pre-allocated outputs have no effect. Leaving it unsets the allocators.

    Examples
    --------
    >>> with enable_output_allocator(module) as exact:
    ...     y = exact(x)
    """
    return ModeManager(
        "enable_output_allocator", module, lambda engine: {"output_allocator": True}, as_module
    )
