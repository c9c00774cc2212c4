"""Small models for tests of single builds."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import Dim

from tests.built_once import built_once

__all__ = ["DYNAMIC", "EXAMPLE", "BranchOnValue", "Positions", "Scale", "exported"]

LARGEST = 16
DYNAMIC: dict[str, Any] = {"x": {0: Dim("rows", min=1, max=LARGEST)}}
EXAMPLE = (torch.ones(3, 4),)


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((4,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class BranchOnValue(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Positions(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(x * 2)  # the line that messages name


@built_once
def exported() -> torch.export.ExportedProgram:
    return torch.export.export(Scale().eval(), EXAMPLE, dynamic_shapes=DYNAMIC)
