"""Which plan factories a run of the tests uses."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import trt_rt

__all__ = ["Factory", "factories"]

_VARIABLE = "TRT_RT_PLAN_FACTORY"


@dataclass(frozen=True)
class Factory:
    """A factory and where it is found.

    Attributes
    ----------
    path : str
        ``module:callable``.
    make : callable
        As `tests.factories` describes.
    needs_gpu : bool
        Whether its engines run on a GPU.
    """

    path: str
    make: Callable[[str], dict[str, Any] | None]
    needs_gpu: bool

    @property
    def name(self) -> str:
        """In the names of tests."""
        return self.path.rpartition(".")[2].replace(":make_", "-").replace(":make", "")


def factories() -> list[Factory]:
    """The reference backend's, those of builders that can run here, and the one of TRT_RT_PLAN_FACTORY."""
    found = [
        _load("tests.factories.reference:make_cpu", needs_gpu=False),
        _load("tests.factories.reference:make_cuda", needs_gpu=True),
    ]
    if torch.cuda.is_available():  # none of TensorRT's engines runs without
        found += [
            _load(f"tests.factories.builders:make_{name}", needs_gpu=True)
            for name, status in trt_rt.backends().items()
            if name in ("tensorrt", "tensorrt_rtx") and status.can_build and status.can_run
        ]
    named = os.environ.get(_VARIABLE)
    return [*found, _load(named)] if named else found


def _load(path: str, *, needs_gpu: bool | None = None) -> Factory:
    module, separator, attribute = path.partition(":")
    if not separator:
        raise ValueError(f"{_VARIABLE}={path!r} must name a plan factory as module:callable")
    make = getattr(importlib.import_module(module), attribute)
    if needs_gpu is None:
        needs_gpu = make("relu")["device"].type == "cuda"
    return Factory(path, make, needs_gpu)
