"""Memory for the intermediate results of runs that are captured in CUDA graphs.

A graph keeps using the addresses of the intermediate results that it was captured with. So nobody else may
get their memory while the captured context lives. PyTorch ensures this only for captures that its own
``torch.cuda.graph`` began. For all other captures the memory comes from a pool that belongs to one context.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from trt_rt._core.callbacks import HandBack
from trt_rt._core.critical import between
from trt_rt._core.dynamo import hide_from_dynamo

__all__ = ["CaptureMemory"]

# A pool is never destroyed before the process ends: PyTorch aborts the process if a pool is destroyed while
# any thread captures a graph or uses a pool. The next context that is captured takes it over instead.
_unused: defaultdict[int, list[torch.cuda.MemPool]] = defaultdict(list)


Result = TypeVar("Result")


class CaptureMemory:
    """The memory pool of one context, taken when it is first captured.

    Parameters
    ----------
    device : torch.device
        The context's device; on the CPU there is nothing to capture.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: torch.cuda.MemPool | None = None
        self._hand_back: HandBack | None = None

    def allocating(self, function: Callable[[], Result]) -> Result:
        """Call a function; what PyTorch allocates for it comes from the pool if the current stream captures.

        Parameters
        ----------
        function : callable
            Without arguments. Allocations of other threads are not affected.

        Returns
        -------
        object
            What the function returns.
        """
        if self._device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            return function()
        if self._pool is None:
            self._pool = self._take()
        # Like torch.cuda.use_mem_pool, but each step is one call of C code, which no interrupt cuts short.
        index, pool = self._device.index, self._pool.id
        release = partial(torch._C._cuda_releasePool, index, pool)
        begin = partial(torch._C._cuda_beginAllocateCurrentThreadToPool, index, pool)
        end = partial(torch._C._cuda_endAllocateToPool, index, pool)
        routed = partial(between, _nothing, function, end)
        return between(begin, routed, release)

    def _take(self) -> torch.cuda.MemPool:
        unused = _unused[self._device.index]
        try:
            pool = unused.pop()
        except IndexError:
            pool = torch.cuda.MemPool()
        self._hand_back = HandBack(unused, pool)
        return pool


def _nothing() -> None:
    pass


hide_from_dynamo(globals())
