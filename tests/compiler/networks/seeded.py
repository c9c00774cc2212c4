"""Random weights that are the same each time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

__all__ = ["seeded"]


def seeded(make: Callable[[], torch.nn.Module]) -> Callable[[], torch.nn.Module]:
    """Return `make` with the seed set, giving its module in evaluation mode."""

    @functools.wraps(make)
    def make_seeded() -> torch.nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make().eval()

    return make_seeded
