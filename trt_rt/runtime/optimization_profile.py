"""The control that chooses an engine's optimization profile."""

from __future__ import annotations

from typing import Any, Literal, SupportsIndex

import torch
from torch.export import ExportedProgram

from trt_rt.module import TRTModule
from trt_rt.module.find_engines import as_module
from trt_rt.module.mode_manager import ModeManager
from trt_rt.module.settings import profile_index, profile_number
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["optimization_profile"]


@takes_compiled_module
def optimization_profile(
    module: torch.nn.Module | ExportedProgram, profile: SupportsIndex | Literal["auto"] | None
) -> ModeManager[torch.nn.Module]:
    """Choose the optimization profile that calls run with.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.
    profile : int, "auto" or None
        A number from 0 makes that profile the only one that calls may use, for all engines. "auto" and None
        keep the profile in use if it admits a call's inputs, and else take the first that does. This is also
        the behaviour without this control.

    Returns
    -------
    ModeManager
        A context manager. ``as`` binds the module to call. Entering raises ValueError if an engine has no
        such profile.

    Raises
    ------
    ValueError
        There is no engine in `module`, or `profile` is a string other than "auto".
    TypeError
        `module` is neither a module nor a program, or `profile` is not an integer, a string or None.

    Notes
    -----
    Inside a context with a number, a call raises InputError if that profile does not admit its inputs. Where
    profiles overlap, a number selects the profile that was tuned for a call's shapes.

    Examples
    --------
    >>> with optimization_profile(module, 1) as decoding:
    ...     y = decoding(x)
    """
    index = profile_number(profile)

    def modes(part: TRTModule) -> dict[str, Any]:
        return {"optimization_profile": profile_index(part.engine, index, part.name)}

    return ModeManager("optimization_profile", module, modes, as_module)
