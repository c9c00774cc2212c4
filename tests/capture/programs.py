"""Programs with one engine, for tests that run them as one graph."""

from __future__ import annotations

from typing import Any

import torch

from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.runtime import WholeGraph

__all__ = ["Program", "affine", "batch", "captures", "served"]


def affine(device: str) -> TRTModule:
    return TRTModule(plans.affine(device=device), device=device)


class Program(torch.nn.Module):
    """An engine and what `body` makes of its output and the other arguments."""

    def __init__(self, device: str, body: Any = None) -> None:
        super().__init__()
        self.engine = affine(device)
        self.body = body or (lambda y: y * 2)
        self.runs = 0

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return self.body(self.engine(x), *args, **kwargs)


def batch(device: str, size: int = 3) -> torch.Tensor:
    return torch.randn(size, 7, device=device)


def captures(run: torch.nn.Module) -> int:
    assert isinstance(run, WholeGraph)
    return run.stats()["captures"]


def served(run: torch.nn.Module, *args: torch.Tensor) -> Any:
    """The result of a call that must not reach Python code of the wrapper."""
    assert isinstance(run, WholeGraph)
    before = run.stats()["replays"]
    run.forward = None  # type: ignore[assignment]  # nn.Module's call would fail
    try:
        result = run(*args)
    finally:
        del run.forward
    assert run.stats()["replays"] == before + 1
    return result
