"""Captures with PyTorch's own graph, which gives each replay random numbers of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch

from trt_rt._core.capture_attempts import raise_invalidated
from trt_rt._core.critical import between
from trt_rt._core.driver import capture_is_invalidated

__all__ = ["capture_in"]

Result = TypeVar("Result")

_ATTEMPTS = 10  # another thread can invalidate each


def capture_in(graph: torch.cuda.CUDAGraph, device: torch.device, program: Callable[[], Result]) -> Result:
    """Capture what a program enqueues on the current stream.

    Parameters
    ----------
    graph : torch.cuda.CUDAGraph
        A new one.
    device : torch.device
        Of the stream.
    program : callable
        Without arguments.

    Returns
    -------
    object
        What the program returns.

    Raises
    ------
    CaptureInvalidatedError
        If CUDA has invalidated the capture.
    RuntimeError
        If PyTorch or CUDA refuses. PyTorch's state is that of before in any case.
    """
    return _Capture(graph, device).run(program)


class _Capture:
    def __init__(self, graph: torch.cuda.CUDAGraph, device: torch.device) -> None:
        self._graph = graph
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._is_over = False

    def run(self, program: Callable[[], Result]) -> Result:
        stream = torch.cuda.current_stream(self._device).cuda_stream

        def run_and_end() -> Result:
            try:
                result = program()
            except BaseException as error:
                raise_invalidated(error, is_invalidated=capture_is_invalidated(stream))
                raise
            try:
                self._end()
            except RuntimeError as error:
                raise_invalidated(error, is_invalidated=False)
                raise
            return result

        return between(partial(self._begin, stream), run_and_end, self._abandon)

    def _begin(self, stream: int) -> None:
        # With thread_local, calls that other threads make meanwhile, such as allocations, do not end this
        # capture. torch.cuda.graph waits for the device, which would end captures of other threads.
        try:
            self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        except RuntimeError as error:
            raise_invalidated(error, is_invalidated=capture_is_invalidated(stream))
            raise

    def _end(self) -> None:
        """End the capture, and make a graph of it."""
        # PyTorch warns of an empty graph, which a program leaves that fails at once. If warnings are
        # errors, the exception keeps PyTorch from restoring its own state.
        ignored = warnings.catch_warnings()
        between(partial(_ignore, ignored), self._graph.capture_end, partial(_leave, ignored))
        self._is_over = True

    def _abandon(self) -> None:
        """End the capture if it is not over, and put PyTorch's state right."""
        if self._is_over:
            return
        if torch.cuda.is_current_stream_capturing():
            with suppress(RuntimeError):  # its message says only that the capture has failed
                self._end()
        if not self._is_over:
            self._end_what_pytorch_left()
        self._is_over = True

    def _end_what_pytorch_left(self) -> None:
        """Restore PyTorch's state after a ``capture_end`` in which ``cudaStreamEndCapture`` failed.

        CUDAGraph::capture_end (aten/src/ATen/cuda/CUDAGraph.cpp) raises before it tells the allocator and the
        random number generator that the capture is over. Without this function, the allocator refuses to free
        memory, and every later random operation raises "Offset increment outside graph capture". The same
        holds for a ``capture_begin`` that CUDA invalidates at once.
        """
        self._end_allocations(self._pool)
        # Earlier graphs have the generator's state too. The end of a capture that succeeds resets it.
        if not any(self._captures_nothing() for _ in range(_ATTEMPTS)):
            generator = torch.cuda.default_generators[self._device.index]
            generator.graphsafe_set_state(generator.clone_state())

    def _captures_nothing(self) -> bool:
        """Capture an empty graph. Return whether that has succeeded."""
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        ignored = warnings.catch_warnings()
        try:
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            between(partial(_ignore, ignored), graph.capture_end, partial(_leave, ignored))
        except RuntimeError:
            if torch.cuda.is_current_stream_capturing():
                with suppress(RuntimeError):
                    graph.capture_end()
            self._end_allocations(pool)
            return False
        return True

    def _end_allocations(self, pool: Any) -> None:
        with suppress(RuntimeError):  # the allocator knows
            torch._C._cuda_endAllocateToPool(self._device.index, pool)


def _ignore(warnings_of_before: warnings.catch_warnings[Any]) -> None:
    warnings_of_before.__enter__()
    warnings.simplefilter("ignore")


def _leave(warnings_of_before: warnings.catch_warnings[Any]) -> None:
    with suppress(AttributeError, RuntimeError):  # it was not entered
        warnings_of_before.__exit__(None, None, None)
