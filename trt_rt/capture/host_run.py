"""Stands in for the CUDA graph of a program on a CPU, where there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trt_rt.capture.outputs import ProgramOutputs

__all__ = ["HostRun"]


class HostRun:
    """Runs a program again on the same static tensors.

    Parameters
    ----------
    program : callable
        Without arguments: they are the static tensors.
    outputs : ProgramOutputs
        Of the recorded run.
    """

    def __init__(self, program: Callable[[], Any], outputs: ProgramOutputs) -> None:
        self._program = program
        self._outputs = outputs
        self._other: Any = None

    def repeat(self, _stream: int) -> bool:
        """Run the program. Returns whether its results are like the recorded ones, and in their place."""
        with torch.inference_mode(False), torch.no_grad():
            result = self._program()
            if self._outputs.matches(result):
                self._outputs.take(result)
                return True
            # The results may lie in static tensors, which the next call overwrites.
            self._other = pytree.tree_map_only(torch.Tensor, torch.clone, result)
            return False

    def take_other_results(self) -> Any:
        """Return the results of a run that are not like the recorded ones."""
        other, self._other = self._other, None
        return other
