"""The control of TensorRT-RTX's runtime settings."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt.backend import RuntimeSettings
from trt_rt.module import TRTModule
from trt_rt.module.find_engines import as_module
from trt_rt.module.mode_manager import ModeManager
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["runtime_config"]


@takes_compiled_module
def runtime_config(
    module: torch.nn.Module | ExportedProgram, **overrides: Any
) -> ModeManager[torch.nn.Module]:
    """Change runtime settings of TensorRT-RTX engines.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.
    **overrides
        Fields of `trt_rt.RuntimeSettings`. Other fields keep the values that each engine has.

    Returns
    -------
    ModeManager
        A context manager. ``as`` binds the module to call. Entering raises BackendError if an engine's
        backend is not TensorRT-RTX. Leaving restores the earlier settings.

    Raises
    ------
    ValueError
        There is no engine in `module`, or a strategy does not exist.
    TypeError
        `module` is neither a module nor a program, or a field does not exist.

    Notes
    -----
    The settings belong to execution contexts, so calls make new contexts after entry and after exit.

    Examples
    --------
    >>> with runtime_config(module, cuda_graph_strategy="whole_graph_capture") as graphed:
    ...     y = graphed(x)
    """
    known = [field.name for field in fields(RuntimeSettings)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise TypeError(f"there is no runtime setting {', '.join(unknown)}; there are {', '.join(known)}.")
    RuntimeSettings(**overrides)  # refuses wrong values here, before anything changes

    def modes(part: TRTModule) -> dict[str, Any]:
        part.engine.require_runtime_settings()
        return {"runtime_settings": replace(part.runtime_settings or RuntimeSettings(), **overrides)}

    return ModeManager("runtime_config", module, modes, as_module)
