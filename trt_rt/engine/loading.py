"""The way from a plan, in memory or in a file, to a loaded engine."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import torch

from trt_rt.backend import Backend, choose_backend
from trt_rt.engine.handle import EngineHandle
from trt_rt.engine.placement import resolve_device
from trt_rt.engine.plan_hash import check_sha256
from trt_rt.errors import PlanError

__all__ = ["load_plan", "map_file"]


def load_plan(
    plan: Any,
    *,
    backend: str | Backend,
    device: torch.device | str | int | None,
    name: str,
    engine_host_code_allowed: bool,
    sha256: str | None,
) -> EngineHandle:
    """Choose a plan's backend and device, check that they fit, and load the plan.

    The parameters and errors are those of `Engine.from_bytes`.
    """
    if sha256 is not None:
        plan = bytes(plan)  # other memory could change between the comparison and TensorRT's reading
        check_sha256(plan, sha256, name)
    view = memoryview(plan).cast("B")
    chosen = choose_backend(view, backend, name)
    built_for = chosen.plan_device(view)
    resolved = resolve_device(built_for if device is None else device, chosen)
    chosen.require(resolved)
    if built_for not in (None, resolved.type):
        raise PlanError(
            f"engine {name!r} was built for device={built_for!r} and cannot run on {resolved}. Build "
            f"it with device={resolved.type!r}, or leave device= out."
        )
    return EngineHandle(chosen, view, resolved, name, engine_host_code_allowed=engine_host_code_allowed)


def map_file(path: Path) -> mmap.mmap:
    """Map a file into memory, for reading.

    Raises
    ------
    OSError
        The file cannot be read.
    PlanError
        The file is empty.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise PlanError(f"{path} is empty. Check that the file was written completely.")
        # Unmapped when nothing refers to it any more; closing it would fail while an exception does.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
