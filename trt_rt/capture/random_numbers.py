"""Whether a program uses PyTorch's random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["SeesRandomNumbers"]


class SeesRandomNumbers(TorchDispatchMode):
    """Context manager that notes whether an operator of this thread takes random numbers.

    Attributes
    ----------
    seen : bool
        Whether an operator has taken random numbers from a generator.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operator's kind, and run it."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.seen = True
        return func(*args, **(kwargs or {}))
