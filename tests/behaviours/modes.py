"""The ways of getting a call's outputs that exist, so that a test can try each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import trt_rt

__all__ = ["MODES", "Caller"]

MODES = ("fresh", "pre_allocated", "out", "bound")


class Caller:
    """Calls a module so that its outputs come as a mode says.

    Parameters
    ----------
    module : TRTModule
        Switched to the mode here.
    mode : str
        One of `MODES`.
    """

    def __init__(self, module: trt_rt.TRTModule, mode: str) -> None:
        self._module = module
        self._mode = mode
        module.set_pre_allocated_outputs(mode == "pre_allocated")

    def __call__(self, inputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> Any:
        """Call with `inputs`; `expected` tells what outputs of the caller's own must be like."""
        if self._mode == "out":
            outputs = tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in expected)
            return self._module(*inputs, out=outputs[0] if len(outputs) == 1 else outputs)
        if self._mode == "bound":
            return self._module.bind(*inputs)()
        return self._module(*inputs)
