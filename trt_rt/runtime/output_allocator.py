"""Switches TensorRT's output allocator on for engines that can do without."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from trt_rt.module.find_engines import as_module
from trt_rt.module.mode_manager import ModeManager

__all__ = ["enable_output_allocator"]


def enable_output_allocator(module: torch.nn.Module | ExportedProgram) -> ModeManager[torch.nn.Module]:
    """Let TensorRT allocate every output, of the exact size that it has.

    Outputs whose size depends on data are always allocated so; this is for all others.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.

    Returns
    -------
    ModeManager
        ``with`` it, ``as`` gives the module to call. It raises ValueError at entry if CUDA graphs are on for
        an engine.

    Raises
    ------
    ValueError
        If there is no engine in `module`.
    TypeError
        If `module` is neither a module nor a program.

    Notes
    -----
    The memory is PyTorch's, and a result owns all of it: nothing is copied or cut off to hand it over. Where
    there is none, the call raises torch.OutOfMemoryError or MemoryError and the module stays usable. While
    this is on, ``out=`` is refused and pre-allocated outputs have no effect. On exit the allocators are
    unset.

    Examples
    --------
    >>> with enable_output_allocator(module) as exact:
    ...     y = exact(x)
    """
    return ModeManager(
        "enable_output_allocator", module, lambda engine: {"output_allocator": True}, as_module
    )
