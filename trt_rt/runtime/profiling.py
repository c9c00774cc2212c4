"""The control that times the layers of engines."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt.module import TRTModule
from trt_rt.module.layer_profile import LayerProfile, LayerTime, new_profiler
from trt_rt.module.mode_manager import ModeEntry, ModeManager
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["LayerProfile", "LayerTime", "enable_profiling"]


@takes_compiled_module
def enable_profiling(module: torch.nn.Module | ExportedProgram) -> ModeManager[LayerProfile]:
    """Time every layer of every engine.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.

    Returns
    -------
    ModeManager
        A context manager. ``as`` binds a `LayerProfile`, which is called in place of the module. Entering
        raises ValueError if CUDA graphs are on for an engine.

    Raises
    ------
    ValueError
        There is no engine in `module`.
    TypeError
        `module` is neither a module nor a program.

    Notes
    -----
    Every call waits until the engine has run. Layers have the names that the plan kept; build with detailed
    profiling verbosity to keep more of them. If two contexts are entered for one module, the inner one gets
    the times.

    Examples
    --------
    >>> with enable_profiling(module) as profile:
    ...     y = profile(x)
    >>> table = profile.table()
    """
    return _Profiling(module)


class _Profiling(ModeManager[LayerProfile]):
    """Makes new profilers at every entry."""

    def __init__(self, module: torch.nn.Module | ExportedProgram) -> None:
        super().__init__("enable_profiling", module, self._profiler_of, self._profile)

    def _new_entry(self) -> ModeEntry[LayerProfile]:
        if not self.is_entered:
            self._profilers = {
                module: new_profiler(module.engine.api, module.name) for module in self._engines
            }
        return super()._new_entry()

    def _profiler_of(self, module: TRTModule) -> dict[str, Any]:
        return {"profiler": self._profilers[module]}

    def _profile(self, module: torch.nn.Module) -> LayerProfile:
        return LayerProfile(module, list(self._profilers.values()))
