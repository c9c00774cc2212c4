"""Runs batches of requests of one program: one copy to the GPU, the program, one copy back."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch

from trt_rt.compiled import Program
from trt_rt.errors import TRTError
from trt_rt.integrations.batching import run_batches
from trt_rt.integrations.interface import ProgramInterface

__all__ = ["BatchRunner"]

_ALIGNMENT = 256
"""Bytes: where tensors begin within a copied block, as cudaMalloc aligns."""


class BatchRunner:
    """A program with a stream and pinned host memory for each thread that calls it.

    Two threads overlap: while one thread's batch is copied, the other's runs.

    Parameters
    ----------
    program : Program
        Is called on the threads' own streams.
    interface : ProgramInterface
        The program's.
    device : torch.device
        The program's.
    """

    def __init__(self, program: Program, interface: ProgramInterface, device: torch.device) -> None:
        self._program = program
        self._interface = interface
        self._device = device
        self._threads = threading.local()

    def run(
        self, requests: Sequence[Mapping[str, torch.Tensor]], *, join: bool = True
    ) -> list[dict[str, torch.Tensor] | TRTError]:
        """Run requests on the caller's thread, and return when their results are in host memory.

        Parameters
        ----------
        requests : sequence of mapping
            The inputs of each request by name, on the CPU.
        join : bool
            Whether requests may be joined, split and filled up.

        Returns
        -------
        list
            For each request its outputs by name, on the CPU and in memory of their own, or its error.
        """
        if self._device.type == "cpu":
            with torch.inference_mode():
                return run_batches(self._program, self._interface, requests, join=join)
        lane: _Lane | None = getattr(self._threads, "lane", None)
        if lane is None:
            lane = self._threads.lane = _Lane(self._device)
        with torch.cuda.device(self._device), torch.cuda.stream(lane.stream), torch.inference_mode():
            results = run_batches(self._program, self._interface, lane.to_device(requests), join=join)
            return lane.to_host(results)


class _Lane:
    """One thread's stream, and its blocks of pinned memory, which grow and are used again."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self._device = device
        self._pinned = torch.empty(0, dtype=torch.uint8, pin_memory=True)

    def to_device(self, requests: Sequence[Mapping[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        tensors = [tensor for request in requests for tensor in request.values()]
        offsets, size = _places(tensors)
        block = self._block(size)
        for tensor, offset in zip(tensors, offsets, strict=True):
            _view(block, offset, tensor).copy_(tensor)
        on_device = block.to(self._device, non_blocking=True)
        views = iter([_view(on_device, offset, each) for offset, each in zip(offsets, tensors, strict=True)])
        return [{name: next(views) for name in request} for request in requests]

    def to_host(
        self, results: Sequence[dict[str, torch.Tensor] | TRTError]
    ) -> list[dict[str, torch.Tensor] | TRTError]:
        found = [result for result in results if not isinstance(result, TRTError)]
        tensors = [tensor for result in found for tensor in result.values()]
        offsets, size = _places(tensors)
        on_device = torch.empty(size, dtype=torch.uint8, device=self._device)
        for tensor, offset in zip(tensors, offsets, strict=True):
            _view(on_device, offset, tensor).copy_(tensor)
        # The inputs' copy out of this memory was enqueued before the program, on the same stream.
        block = self._block(size)
        block.copy_(on_device, non_blocking=True)
        self.stream.synchronize()
        views = iter(
            [_view(block, offset, each).clone() for offset, each in zip(offsets, tensors, strict=True)]
        )
        return [
            result if isinstance(result, TRTError) else {name: next(views) for name in result}
            for result in results
        ]

    def _block(self, size: int) -> torch.Tensor:
        if self._pinned.numel() < size:
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self._pinned[:size]


def _places(tensors: Sequence[torch.Tensor]) -> tuple[list[int], int]:
    """Return where each tensor begins in a block of bytes, and the size of the block."""
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return offsets, end


def _view(block: torch.Tensor, offset: int, tensor: torch.Tensor) -> torch.Tensor:
    return block[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
