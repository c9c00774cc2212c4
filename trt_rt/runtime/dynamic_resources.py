"""The control of scratch memory that engines share and that fits the shapes in use."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from trt_rt.module.find_engines import as_module
from trt_rt.module.flags import checked_flag
from trt_rt.module.mode_manager import ModeManager
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["use_dynamically_allocated_resources"]


@takes_compiled_module
def use_dynamically_allocated_resources(
    module: torch.nn.Module | ExportedProgram, dynamically_allocate_resources: bool = True
) -> ModeManager[torch.nn.Module]:
    """Size scratch memory for the shapes in use, and share it between the modules of one stream.

    Without this control each execution context has scratch memory of its own, for the largest shapes of any
    profile.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.
    dynamically_allocate_resources : bool, optional
        False switches the control off, inside a context that switched it on.

    Returns
    -------
    ModeManager
        A context manager. ``as`` binds the module to call.

    Raises
    ------
    ValueError
        There is no engine in `module`.
    TypeError
        `module` is neither a module nor a program.

    Notes
    -----
    Entering and leaving drop execution contexts and CUDA graphs, and the next call makes new ones. A call
    with new shapes asks TensorRT for the size that they need. PyTorch allocates the memory. It only grows,
    and is freed when no module uses it any more.

    Examples
    --------
    >>> with use_dynamically_allocated_resources(module) as small:
    ...     y = small(x)
    """
    enabled = checked_flag("dynamically_allocate_resources", dynamically_allocate_resources)
    return ModeManager(
        "use_dynamically_allocated_resources",
        module,
        lambda engine: {"dynamic_resources": enabled},
        as_module,
    )
