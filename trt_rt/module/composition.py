"""The controls that exclude each other, and the check at entry. docs/modes.md shows every pair in a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from trt_rt._core.critical import Gate
from trt_rt.errors import SettingError
from trt_rt.module.executors import ModuleExecutors

__all__ = ["CONTROLS", "EXCLUSIONS", "refuse_excluded", "refuse_if", "settings_change"]

settings_change = Gate()
"""Held from `refuse_if` until a setting has changed, so that no other thread switches on what it excludes."""

# The rows and columns of the table "Two at once" in docs/modes.md, in its order.
CONTROLS = (
    "enable_cudagraphs",
    "enable_pre_allocated_outputs",
    "enable_output_allocator",
    "weight_streaming",
    "optimization_profile",
    "use_dynamically_allocated_resources",
    "enable_profiling",
    "runtime_config",
    "set_multi_device_safe_mode",
)

# Pairs of controls that exclude each other, whichever is entered first, with the reason.
EXCLUSIONS: Mapping[frozenset[str], str] = MappingProxyType(
    {
        frozenset({"enable_cudagraphs", "enable_output_allocator"}): (
            "TensorRT chooses the addresses of outputs in every call, but a CUDA graph has addresses baked in"
        ),
        frozenset({"enable_cudagraphs", "enable_profiling"}): (
            "TensorRT waits for the device to time its layers, which a CUDA graph cannot contain "
            "(profile(module, path) times layers too, unless it gets layers=False)"
        ),
    }
)


class _Module(Protocol):
    """The part of `TRTModule` that this file uses."""

    name: str

    @property
    def executors(self) -> ModuleExecutors: ...


# For each control of `EXCLUSIONS`, whether it is on for a module. An exclusion by a control that is missing
# here is not noticed while that control is on.
_IS_ON: Mapping[str, Callable[[_Module], bool]] = {
    "enable_cudagraphs": lambda module: (
        module.executors.uses_cuda_graphs or module.executors.modes.whole_graph
    ),
    "enable_output_allocator": lambda module: module.executors.modes.output_allocator,
    "enable_profiling": lambda module: module.executors.modes.profiler is not None,
}


def refuse_if(modules: Iterable[_Module], entering: str, leaving: Collection[str] = ()) -> None:
    """Refuse to switch a control on for modules that have one on that it excludes.

    Parameters
    ----------
    modules : iterable of TRTModule
        The modules that get the control.
    entering : str
        The control's name. One that is in no pair of `EXCLUSIONS` is never refused.
    leaving : collection of str, optional
        Controls that are switched off with it.

    Raises
    ------
    SettingError
        With the reason.
    """
    modules = list(modules)
    for control, is_on in _IS_ON.items():
        reason = EXCLUSIONS.get(frozenset({control, entering}))
        if reason is None or control in leaving:
            continue
        for module in modules:
            if is_on(module):
                raise SettingError(
                    f"{entering} cannot be entered for engine {module.name!r} while {control} is on for it: "
                    f"{reason}."
                )


def refuse_excluded(module: _Module, changes: Mapping[str, Any]) -> None:
    """Refuse lasting settings that exclude each other, or a control that is on for the module.

    Parameters
    ----------
    module : TRTModule
        The module that gets the settings.
    changes : mapping of str to object
        Fields of `Modes`.

    Raises
    ------
    SettingError
        With the reason.
    """
    if changes.get("cuda_graphs"):
        if changes.get("output_allocator"):
            reason = EXCLUSIONS[frozenset({"enable_cudagraphs", "enable_output_allocator"})]
            raise SettingError(f"cuda_graphs and output_allocator exclude each other: {reason}.")
        leaving = {"enable_output_allocator"} if "output_allocator" in changes else set()
        refuse_if([module], "enable_cudagraphs", leaving)
    elif changes.get("output_allocator"):
        leaving = {"enable_cudagraphs"} if changes.get("cuda_graphs") is False else set()
        refuse_if([module], "enable_output_allocator", leaving)
