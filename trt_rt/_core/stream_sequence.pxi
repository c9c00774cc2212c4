"""Keeps calls that share memory in one order, whichever streams they come from."""

cimport cython
from cuda.bindings cimport cydriver
from libc.stdint cimport int32_t, uintptr_t

from trt_rt._core.dlpack cimport DLExchangeAPI, current_stream, torch_exchange_api

import torch


@cython.final
cdef class StreamSequence:
    """Orders the GPU work of each call after that of the call before.

    Nothing is done while calls come from one stream.

    Parameters
    ----------
    device : torch.device
        Where the calls run. On a CPU a call is over when it returns, and there is nothing to order.
    """

    cdef const DLExchangeAPI* api
    cdef int32_t device_index
    cdef bint on_cuda
    cdef StreamOrder order       # None on a CPU
    cdef uintptr_t handle        # the stream of the last call
    cdef bint is_known           # False before the first call
    cdef bint is_external        # see `is_external`
    cdef cydriver.CUfunction copy_kernel  # NULL: copies are not nodes of graphs

    def __cinit__(self, device):
        self.api = torch_exchange_api()
        self.device_index = device.index or 0
        self.on_cuda = device.type == "cuda"
        if self.on_cuda:
            self.order = StreamOrder(self.device_index)
            self.copy_kernel = copy_kernel(self.order)

    cdef inline uintptr_t current(self) except? 1:
        """The calling thread's current stream; 0 on a CPU."""
        return current_stream(self.api, self.device_index) if self.on_cuda else 0

    cdef inline int begin_on(self, uintptr_t stream) except -1:
        """Make `stream` wait for the last call's work, if that went to another stream."""
        if self.on_cuda and (stream != self.handle or not self.is_known):
            self._change(stream)
        return 0

    cdef int _change(self, uintptr_t stream) except -1:
        if self.is_known:
            self.order.follow(self.handle, self.is_external, stream)
        self.is_external = is_external(stream, self.device_index)
        self.handle = stream
        self.is_known = True
        return 0

    cdef inline int end_on(self, uintptr_t stream) except -1:
        """Note that a call has enqueued all of its work."""
        if self.is_external:
            self.order.mark_done(stream)
        return 0

    def begin(self):
        """Make the current stream wait for the last call's work, if that went to another stream."""
        self.begin_on(self.current())

    def end(self):
        """Note that the call which began last has enqueued all of its work."""
        self.end_on(self.handle)

    def wait(self):
        """Block until the last call's work is done."""
        if self.is_known:
            self.order.wait_for(self.handle, self.is_external)
