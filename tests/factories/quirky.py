"""Engines with habits of TensorRT 8.6, on the CPU: TRT_RT_PLAN_FACTORY=tests.factories.quirky:make."""

from __future__ import annotations

import functools
from typing import Any

import trt_rt
from tests.factories.reference import make_cpu
from tests.quirky_tensorrt import quirky_backend

__all__ = ["make"]


def make(kind: str) -> dict[str, Any] | None:
    """An engine that runs on the CPU."""
    made = make_cpu(kind)
    return made and {**made, "backend": _backend()}


@functools.cache
def _backend() -> trt_rt.Backend:
    return quirky_backend()
