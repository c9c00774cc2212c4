"""Memory for the intermediate results of runs that are captured in CUDA graphs.

A graph keeps using the addresses of the intermediate results that it was captured with. So nobody else may
get their memory while the captured context lives. PyTorch ensures this only for captures that its own
``torch.cuda.graph`` began. For all other captures the memory comes from a pool that belongs to one context.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["CaptureMemory"]

# A pool is never destroyed before the process ends: PyTorch aborts the process if a pool is destroyed while
# any thread captures a graph or uses a pool. The next context that is captured takes over the pool.
_unused: defaultdict[int, list[torch.cuda.MemPool]] = defaultdict(list)


class CaptureMemory:
    """The memory pool of one context, which is taken at the context's first capture.

    Parameters
    ----------
    device : torch.device
        The context's device. There is no capture on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: torch.cuda.MemPool | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let PyTorch allocate from the pool on this thread, if the current stream is capturing."""
        if self._device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            yield
            return
        if self._pool is None:
            self._pool = self._take()
        with torch.cuda.use_mem_pool(self._pool):
            yield

    def _take(self) -> torch.cuda.MemPool:
        unused = _unused[self._device.index]
        try:
            pool = unused.pop()
        except IndexError:
            pool = torch.cuda.MemPool()
        weakref.finalize(self, unused.append, pool).atexit = False
        return pool


hide_from_dynamo(globals())
