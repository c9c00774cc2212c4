"""What the tests of builds know about a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.export import Dim

__all__ = ["LARGEST_BATCH", "Network", "batch_of"]

LARGEST_BATCH = 8

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Network:
    """A network that people deploy, small and with random weights.

    Attributes
    ----------
    make : callable
        Returns the module, in evaluation mode; the same weights each time.
    inputs : callable
        Returns inputs by name for a batch size.
    dynamic_shapes : dict
        As torch.export takes it, by name of the input.
    low_precision : {"fp16", "bf16"}
        The precision besides float32 in which it is built.
    """

    make: Callable[[], torch.nn.Module]
    inputs: Callable[[int], Inputs]
    dynamic_shapes: dict[str, Any]
    low_precision: Literal["fp16", "bf16"] = "fp16"


def batch_of(*names: str) -> dict[str, Any]:
    """Dynamic shapes in which the first dimension of each input is the same batch."""
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    return {name: {0: batch} for name in names}
