"""The replacement on a CPU for the CUDA graph of a program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trt_rt._core.autograd_modes import in_inference_mode, without_grad
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.capture.outputs import ProgramOutputs

__all__ = ["HostRun"]


class HostRun:
    """Runs a program again on the same static tensors.

    Parameters
    ----------
    program : callable
        Takes no arguments: the static tensors are bound to it.
    outputs : ProgramOutputs
        The outputs of the first run.
    """

    def __init__(self, program: Callable[[], Any], outputs: ProgramOutputs) -> None:
        self._program = program
        self._outputs = outputs
        self._other: Any = None

    def repeat(self, _stream: int) -> bool:
        """Run the program. Return whether its results are like the first ones, and are in the outputs."""
        return in_inference_mode(False, partial(without_grad, self._run))

    def _run(self) -> bool:
        with plain_pytorch():  # as a graph, which no mode or transform around a call changes
            return self._run_plainly()

    def _run_plainly(self) -> bool:
        result = self._program()
        if self._outputs.matches(result):
            self._outputs.take(result)
            return True
        # The results may share memory with static tensors, which the next call overwrites.
        self._other = pytree.tree_map_only(torch.Tensor, torch.clone, result)
        return False

    def take_other_results(self) -> Any:
        """Return the results of the last run, if they were not like the first ones."""
        other, self._other = self._other, None
        return other
