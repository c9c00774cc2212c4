"""A CUDA graph of what a thread enqueues, captured without ``torch.cuda.CUDAGraph``.

PyTorch's own capture makes its random number generator belong to the capture: meanwhile every random
operation of another thread raises "Offset increment outside graph capture". A program that uses no random
numbers can do without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from cuda.bindings import driver

from trt_rt._core.call import launch_graph
from trt_rt._core.capture_memory import CaptureMemory
from trt_rt.errors import ExecutionError

__all__ = ["StreamGraph"]

Result = TypeVar("Result")


class StreamGraph:
    """Captured once, with `capture`, and then launched any number of times.

    Parameters
    ----------
    device : torch.device
        A GPU, with index; the current one during the capture.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = CaptureMemory(device)
        self._executable: Any = None
        self._handle = 0

    def __del__(self) -> None:
        # CUDA frees a graph that is in flight when it is done.
        if self._executable is not None and sys is not None and not sys.is_finalizing():
            driver.cuGraphExecDestroy(self._executable)

    def capture(self, function: Callable[[], Result]) -> Result:
        """Call a function, and capture what it enqueues on the current stream.

        Memory that PyTorch allocates meanwhile stays the graph's until this is collected.

        Raises
        ------
        ExecutionError
            If CUDA refuses.
        """
        stream = torch.cuda.current_stream(self._device).cuda_stream
        # Thread-local: what other threads do meanwhile, allocating above all, must not break this.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _check("cuStreamBeginCapture", *driver.cuStreamBeginCapture(stream, mode))
        try:
            with self._memory.in_use():
                result = function()
        except BaseException:
            error, graph = driver.cuStreamEndCapture(stream)
            if error == driver.CUresult.CUDA_SUCCESS:
                driver.cuGraphDestroy(graph)
            raise
        graph = _check("cuStreamEndCapture", *driver.cuStreamEndCapture(stream))
        try:
            self._executable = _check("cuGraphInstantiate", *driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)
        self._handle = int(self._executable)
        return result

    def launch(self) -> None:
        """Repeat it in the order of the current stream."""
        launch_graph(self._handle, self._device.index)


def _check(call: str, error: Any, *result: Any) -> Any:
    if error != driver.CUresult.CUDA_SUCCESS:
        raise ExecutionError(f"{call} failed with {error.name}.")
    return result[0] if result else None
