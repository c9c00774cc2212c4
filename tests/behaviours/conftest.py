"""Every test of behaviour sees the same random values, whichever tests run before it."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_values() -> None:
    torch.manual_seed(0)
