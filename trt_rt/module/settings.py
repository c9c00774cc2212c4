"""A module's lasting settings: which there are, and what each may be."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from trt_rt.backend import RuntimeSettings
from trt_rt.engine import Engine
from trt_rt.errors import SettingError
from trt_rt.module.counts import checked_count
from trt_rt.module.flags import checked_flag

__all__ = ["checked_settings", "profile_index", "profile_number"]


def checked_settings(engine: Engine, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Modes` that settings stand for.

    Parameters
    ----------
    engine : Engine
        What they must fit.
    settings : mapping of str to object
        As for `TRTModule.configure`.

    Raises
    ------
    SettingError
        If a setting does not fit the engine.
    ValueError
        If a number is out of range.
    TypeError
        If there is no such setting, or a value is of another type.
    BackendError
        If the engine's backend has no `RuntimeSettings`.
    """
    unknown = sorted(set(settings) - set(_CHECKS))
    if unknown:
        raise TypeError(f"there is no setting {', '.join(unknown)}; there are {', '.join(_CHECKS)}.")
    return {name: _CHECKS[name](engine, value) for name, value in settings.items()}


def profile_number(profile: Any) -> int | None:
    """Return the number of an optimization profile; None for the first that admits a call's inputs.

    Parameters
    ----------
    profile : int, "auto" or None

    Raises
    ------
    SettingError
        If `profile` is another string.
    TypeError
        If it is something else.
    """
    if profile is None or profile == "auto":
        return None
    allowed = f"profile={profile!r}: a number from 0, 'auto' or None is allowed."
    if isinstance(profile, str):
        raise SettingError(allowed)
    if isinstance(profile, bool) or not hasattr(profile, "__index__"):
        raise TypeError(allowed)
    return operator.index(profile)


def profile_index(engine: Engine, profile: Any, name: str = "") -> int | None:
    """Return the number of an optimization profile that an engine has; None as from `profile_number`.

    Parameters
    ----------
    engine : Engine
    profile : int, "auto" or None
    name : str, optional
        The engine's, for the message.

    Raises
    ------
    SettingError
        If the engine has no such profile, or `profile` is another string.
    TypeError
        If `profile` is something else.
    """
    index = profile_number(profile)
    if index is None:
        return None
    count = engine.num_optimization_profiles
    if not 0 <= index < count:
        has = "profile 0 only" if count == 1 else f"the profiles 0 to {count - 1}"
        raise SettingError(f"profile={index}: engine {name or engine.name!r} has {has}.")
    return index


def _buffers(engine: Engine, value: Any) -> int:
    if isinstance(value, bool):
        return int(value)
    return 0 if value == 0 else checked_count("pre_allocated_outputs", value, "sets of outputs")


def _flag(name: str) -> Callable[[Engine, Any], bool]:
    return lambda engine, value: checked_flag(name, value)


def _graphs(engine: Engine, value: Any) -> bool | None:
    if value is None:
        return None
    if checked_flag("cuda_graphs", value) and engine.data_dependent_outputs:
        raise SettingError(
            f"engine {engine.name!r} cannot be run as a CUDA graph: the size of output "
            f"{' and '.join(map(repr, engine.data_dependent_outputs))} depends on data, so its memory is "
            "allocated in the run."
        )
    return bool(value)


def _runtime_settings(engine: Engine, value: Any) -> RuntimeSettings | None:
    if value is None:
        return None
    if not isinstance(value, RuntimeSettings):
        raise TypeError(f"runtime_settings must be RuntimeSettings, not {type(value).__name__}.")
    engine.require_runtime_settings()
    return value


_CHECKS: Mapping[str, Callable[[Engine, Any], Any]] = MappingProxyType(
    {
        "cuda_graphs": _graphs,
        "dynamic_resources": _flag("dynamic_resources"),
        "max_graphs": lambda engine, value: checked_count("max_graphs", value, "CUDA graphs that are kept"),
        "optimization_profile": profile_index,
        "output_allocator": _flag("output_allocator"),
        "pre_allocated_outputs": _buffers,
        "runtime_settings": _runtime_settings,
    }
)
