"""The ways of running an engine through CUDA graphs, so that a test can try each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import trt_rt
from trt_rt.runtime import enable_cudagraphs

__all__ = ["GRAPH_MODES", "Doubled", "Graphed", "graphed"]

GRAPH_MODES = ("per_engine", "whole")


class Doubled(torch.nn.Module):
    """An engine, and a PyTorch operator on each of its outputs."""

    def __init__(self, engine: trt_rt.TRTModule) -> None:
        super().__init__()
        self.engine = engine
        self.factor = torch.nn.Parameter(torch.tensor(2.0, device=engine.engine.device), requires_grad=False)

    def forward(self, *inputs: torch.Tensor) -> Any:
        outputs = self.engine(*inputs)
        if isinstance(outputs, tuple):
            return tuple(output * self.factor for output in outputs)
        return outputs * self.factor


class Graphed:
    """What `graphed` gives: called with inputs, checks what comes back.

    Attributes
    ----------
    engine : TRTModule
        The engine's module.
    callable : torch.nn.Module
        What enable_cudagraphs gave.
    """

    def __init__(self, case: Any, mode: str, engine: trt_rt.TRTModule, run: torch.nn.Module) -> None:
        self._case = case
        self._factor = 2 if mode == "whole" else 1
        self.engine = engine
        self.callable = run

    def check(self, *inputs: torch.Tensor) -> Any:
        """Call, compare with what is expected, and return the result."""
        expected = self.expected(*inputs)
        result = self.callable(*inputs)
        self._case.assert_right(result, expected)
        return result

    def expected(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What a call must return."""
        return tuple(output * self._factor for output in self._case.expected(*inputs))

    @property
    def captures(self) -> int:
        """Graphs captured so far."""
        captures: int = self.callable.stats()["captures"]
        return captures


@contextmanager
def graphed(
    case: Any, mode: str, engine: trt_rt.TRTModule | None = None, **options: Any
) -> Iterator[Graphed]:
    """A case's engine within enable_cudagraphs, by itself ("per_engine") or in a program ("whole")."""
    engine = case.module() if engine is None else engine
    program = Doubled(engine) if mode == "whole" else engine
    with enable_cudagraphs(program, whole_graph=mode == "whole", **options) as run:
        yield Graphed(case, mode, engine, run)
