"""Build options on TensorRT's ``IBuilderConfig``.

Versions differ in their options. An option exists if its enum member exists, whatever the version's number.
"""

from __future__ import annotations

from typing import Any

from trt_rt.backend import Backend
from trt_rt.compiler.options import BuildOptions
from trt_rt.errors import CompileError

__all__ = ["apply_options"]

_FLAGS = {
    "version_compatible": "VERSION_COMPATIBLE",
    "refittable": "REFIT",
    "weight_streaming": "WEIGHT_STREAMING",
}
"""The options that are a BuilderFlag, with its name."""


def apply_options(options: BuildOptions, config: Any, backend: Backend) -> None:
    """Set the options on an ``IBuilderConfig``.

    Raises
    ------
    CompileError
        This TensorRT lacks an option. The message names the option, the backend and the version.
    """
    api = backend.api
    for name, flag in _FLAGS.items():
        if getattr(options, name):
            config.set_flag(_member(api, "BuilderFlag", flag, f"{name}=True", backend))
    if options.workspace_bytes is not None:
        pool = _member(api, "MemoryPoolType", "WORKSPACE", "workspace_bytes", backend)
        config.set_memory_pool_limit(pool, options.workspace_bytes)
    if options.hardware_compatible:
        config.hardware_compatibility_level = _member(
            api, "HardwareCompatibilityLevel", "AMPERE_PLUS", "hardware_compatible=True", backend
        )
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.compute_capabilities:
        _set_compute_capabilities(options, config, backend)


def _set_compute_capabilities(options: BuildOptions, config: Any, backend: Backend) -> None:
    if not hasattr(config, "num_compute_capabilities"):
        raise _lacks("compute_capabilities", backend)
    members = [
        _member(
            backend.api,
            "ComputeCapability",
            f"SM{major}{minor}",
            f"compute_capabilities=[({major}, {minor})]",
            backend,
        )
        for major, minor in options.compute_capabilities
    ]
    config.num_compute_capabilities = len(members)
    for index, member in enumerate(members):
        if not config.set_compute_capability(member, index):
            raise CompileError(
                f"{backend.name} {backend.version} refuses compute capability {member.name}: "
                f"{backend.log.take_error() or 'it logged no reason'}"
            )


def _member(api: Any, enum: str, member: str, option: str, backend: Backend) -> Any:
    found = getattr(api, enum, None)
    if not hasattr(found, member):
        raise _lacks(option, backend, sorted(getattr(found, "__members__", ())))
    return getattr(found, member)


def _lacks(option: str, backend: Backend, members: list[str] | None = None) -> CompileError:
    has = f" (but {', '.join(members)})" if members else ""
    return CompileError(
        f"{option}: {backend.name} {backend.version} does not have this{has}. Leave it out, or build with "
        "another TensorRT"
    )
