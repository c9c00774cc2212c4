"""Engines of given streamable sizes, and a tree of modules over some."""

from __future__ import annotations

import torch

from tests.built_once import built_once
from trt_rt import Engine, TRTModule, reference

__all__ = ["AddFirstRow", "chain", "plain_plan", "streaming_plan"]


class AddFirstRow(torch.nn.Module):
    """``x + weight[0]``, all ones; the rest of `weight` is there to be streamed."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(rows, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight[:1]


@built_once
def streaming_plan(rows: int, device: str = "cpu") -> bytes:
    """A plan with 16 streamable bytes a row."""
    return _build(rows, device, streamable=True)


@built_once
def plain_plan(device: str = "cpu") -> bytes:
    """A plan that was not built for weight streaming."""
    return _build(4, device, streamable=False)


def _build(rows: int, device: str, *, streamable: bool) -> bytes:
    return reference.build(
        AddFirstRow(rows),
        (torch.zeros(3, 4),),
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=32)}},
        device=device,
        streamable_weights=streamable,
    )


def chain(*plans: bytes) -> torch.nn.Sequential:
    """Modules over engines of their own, one after the other; each adds one."""
    return torch.nn.Sequential(
        *[TRTModule(Engine.from_bytes(plan, name=f"engine {index}")) for index, plan in enumerate(plans)]
    )
