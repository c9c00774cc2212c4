"""The engine of a new module: a plan, a file or a loaded engine, and when to load it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from trt_rt.backend import Backend
from trt_rt.engine import Engine

__all__ = ["is_lazy", "load_engine"]


def is_lazy(settings: Any) -> bool:
    """Return whether settings ask to load the engine only when it is needed."""
    if isinstance(settings, Mapping):
        return bool(settings.get("lazy_engine_init", False))
    return bool(getattr(settings, "lazy_engine_init", False))


def load_engine(
    source: bytes | bytearray | memoryview | str | os.PathLike[str] | Engine,
    name: str,
    backend: str | Backend,
    device: torch.device | str | int | None,
    sha256: str | None,
) -> Engine:
    """Return the engine of a plan, of a file, or the given one.

    The parameters and errors are those of `TRTModule`.
    """
    if isinstance(source, Engine):
        if sha256 is not None:
            raise ValueError(
                f"sha256= is compared with a plan, and engine {source.name!r} is loaded already. Give it to "
                "Engine.load or Engine.from_bytes."
            )
        return source
    if isinstance(source, (str, os.PathLike)):
        return Engine.load(source, backend=backend, device=device, name=name, sha256=sha256)
    return Engine.from_bytes(source, backend=backend, device=device, name=name, sha256=sha256)
