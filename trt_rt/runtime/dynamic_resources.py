"""Lets engines share scratch memory that is as large as the shapes in use need."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from trt_rt.module.find_engines import as_module
from trt_rt.module.mode_manager import ModeManager

__all__ = ["use_dynamically_allocated_resources"]


def use_dynamically_allocated_resources(
    module: torch.nn.Module | ExportedProgram, dynamically_allocate_resources: bool = True
) -> ModeManager[torch.nn.Module]:
    """Size scratch memory for the shapes in use, and share it between the modules of one stream.

    Otherwise each execution context has scratch memory of its own, for the largest shapes of any profile.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.
    dynamically_allocate_resources : bool, optional
        False switches it off, within a context that has switched it on.

    Returns
    -------
    ModeManager
        ``with`` it, ``as`` gives the module to call.

    Raises
    ------
    ValueError
        If there is no engine in `module`.
    TypeError
        If `module` is neither a module nor a program.

    Notes
    -----
    Entering and leaving drop execution contexts and CUDA graphs, which the next call makes anew. A call with
    other shapes than the one before asks TensorRT for the size that they need. The memory is PyTorch's and
    only grows; it is freed when the last module that uses it lets go of it.

    Examples
    --------
    >>> with use_dynamically_allocated_resources(module) as small:
    ...     y = small(x)
    """
    enabled = bool(dynamically_allocate_resources)
    return ModeManager(
        "use_dynamically_allocated_resources",
        module,
        lambda engine: {"dynamic_resources": enabled},
        as_module,
    )
