"""The executables of a captured graph, by the addresses that their copies have."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from trt_rt._core.driver cimport check

import sys

cdef enum:
    # A loop that keeps its last results gets new ones at two or three addresses in turn. Another executable
    # costs some tens of microseconds once. Giving a copy node new addresses takes 0.3 to 0.6 us at each call.
    MOST_EXECUTABLES = 4
    # A graph of more nodes has one. Its launch takes so long that this time does not count, and executables
    # cost more.
    MOST_NODES = 64


cdef struct Executable:
    cydriver.CUgraphExec handle
    uintptr_t* addresses         # of callers' tensors, which its nodes copy from and to; 0: not known
    bint* is_off                 # per copy node: disabled, because it would copy nothing
    uint64_t last_used


@cython.final
@cython.no_gc_clear
cdef class GraphExecutables:
    """The executables that were made of one captured graph, each for the addresses of some calls.

    The nodes of a graph that copy have the addresses of callers' tensors baked in. A call gets the executable
    that has its addresses. If there is none, a new one is made; when there are enough, the nodes of the least
    recently used one are given the addresses.

    Parameters
    ----------
    from_callers, to_callers : TensorCopies or None
        The copies that are nodes of the graph.
    """

    cdef cydriver.CUgraph template  # what was captured; its nodes name those of the executables
    cdef TensorCopies from_callers
    cdef TensorCopies to_callers
    cdef Executable made[MOST_EXECUTABLES]
    cdef int count
    cdef int limit
    cdef uint64_t clock
    cdef cydriver.CUgraphExec current  # for the call whose addresses were taken last
    cdef uintptr_t* captured     # addresses in the template
    cdef cydriver.CUcontext context  # of the device

    def __cinit__(self, TensorCopies from_callers, TensorCopies to_callers):
        self.from_callers = from_callers
        self.to_callers = to_callers

    def __dealloc__(self):
        cdef int index
        PyMem_Free(self.captured)
        for index in range(self.count):
            PyMem_Free(self.made[index].addresses)
            PyMem_Free(self.made[index].is_off)
        # CUDA frees a graph in flight when it is done (cuGraphExecDestroy).
        if sys is None or sys.is_finalizing():
            return
        with nogil:
            for index in range(self.count):
                cydriver.cuGraphExecDestroy(self.made[index].handle)
            if self.template != NULL:
                cydriver.cuGraphDestroy(self.template)

    cdef int make_first(self, cydriver.CUgraph template, cydriver.CUstream stream) except -1:
        """Take over a graph that was captured just now, and make the first executable of it."""
        cdef size_t nodes = 0
        self.template = template
        for copies in (self.from_callers, self.to_callers):
            if copies is not None:
                (<TensorCopies> copies).find_nodes(template)
        self.captured = <uintptr_t*> PyMem_Calloc(max(self._address_count(), 1), sizeof(uintptr_t))
        if self.captured == NULL:
            raise MemoryError()
        self._write_addresses(self.captured)
        check(cydriver.cuCtxGetCurrent(&self.context), b"cuCtxGetCurrent")
        check(cydriver.cuGraphGetNodes(template, NULL, &nodes), b"cuGraphGetNodes")
        self.limit = MOST_EXECUTABLES if nodes <= MOST_NODES else 1
        self.current = self._make().handle
        cydriver.cuGraphUpload(self.current, stream)
        return 0

    cdef int choose(self) except -1:
        """Make the executable current that has the addresses of this call, which the copies have taken."""
        cdef int index
        cdef Executable* chosen = NULL
        self.clock += 1
        for index in range(self.count):
            if self._has_addresses(&self.made[index]):
                chosen = &self.made[index]
                break
        if chosen == NULL:
            chosen = self._least_recent()
            if chosen.last_used != 0 and self.count < self.limit:
                chosen = self._make()
            self._update(chosen)
        chosen.last_used = self.clock
        self.current = chosen.handle
        return 0

    cdef Executable* _make(self) except NULL:
        cdef Executable* executable = &self.made[self.count]
        cdef Py_ssize_t room = self._address_count() * sizeof(uintptr_t)
        self._instantiate(executable)
        self.count += 1
        executable.is_off = <bint*> PyMem_Calloc(max(self._node_count(), 1), sizeof(bint))
        executable.addresses = <uintptr_t*> PyMem_Calloc(max(room, 1), 1)
        if executable.is_off == NULL or executable.addresses == NULL:
            self._destroy_last()
            raise MemoryError()
        memcpy(executable.addresses, self.captured, room)
        return executable

    cdef int _instantiate(self, Executable* executable) except -1:
        cdef cydriver.CUstreamCaptureMode mode = cydriver.CU_STREAM_CAPTURE_MODE_RELAXED
        cdef cydriver.CUcontext popped = NULL
        cdef cydriver.CUresult result
        # The thread's current device may be another, and it may be capturing on another stream: the memory
        # that is allocated here would end that capture.
        check(cydriver.cuCtxPushCurrent(self.context), b"cuCtxPushCurrent")
        cydriver.cuThreadExchangeStreamCaptureMode(&mode)
        result = cydriver.cuGraphInstantiate(&executable.handle, self.template, 0)
        cydriver.cuThreadExchangeStreamCaptureMode(&mode)
        cydriver.cuCtxPopCurrent(&popped)
        return check(result, b"cuGraphInstantiate")

    cdef void _destroy_last(self) noexcept:
        cdef Executable* executable = &self.made[self.count - 1]
        self.count -= 1
        PyMem_Free(executable.addresses)
        PyMem_Free(executable.is_off)
        cydriver.cuGraphExecDestroy(executable.handle)
        memset(executable, 0, sizeof(Executable))

    cdef Executable* _least_recent(self) noexcept:
        cdef int index
        cdef int chosen = 0
        for index in range(1, self.count):
            if self.made[index].last_used < self.made[chosen].last_used:
                chosen = index
        return &self.made[chosen]

    cdef int _update(self, Executable* executable) except -1:
        """Give the nodes of an executable the addresses of this call; earlier launches are not affected."""
        cdef bint succeeded = False
        cdef uintptr_t* addresses = executable.addresses
        cdef bint* is_off = executable.is_off
        try:
            if self.from_callers is not None:
                self.from_callers.update_nodes(executable.handle, addresses, is_off)
                addresses += self.from_callers.count
                is_off += self.from_callers.list_count()
            if self.to_callers is not None:
                self.to_callers.update_nodes(executable.handle, addresses, is_off)
            succeeded = True
        finally:
            if not succeeded:
                self.forget()
        return 0

    cdef void forget(self) noexcept:
        """Note that the current executable is not known to have the addresses that the copies have taken."""
        if self.from_callers is not None:
            self.from_callers.forget_addresses()
        if self.to_callers is not None:
            self.to_callers.forget_addresses()

    cdef bint _has_addresses(self, const Executable* executable) noexcept:
        cdef const uintptr_t* addresses = executable.addresses
        if self.from_callers is not None:
            if not self.from_callers.has_addresses(addresses):
                return False
            addresses += self.from_callers.count
        return self.to_callers is None or self.to_callers.has_addresses(addresses)

    cdef void _write_addresses(self, uintptr_t* addresses) noexcept:
        if self.from_callers is not None:
            self.from_callers.write_addresses(addresses, 0, self.from_callers.count)
            addresses += self.from_callers.count
        if self.to_callers is not None:
            self.to_callers.write_addresses(addresses, 0, self.to_callers.count)

    cdef Py_ssize_t _address_count(self) noexcept:
        cdef Py_ssize_t count = 0
        if self.from_callers is not None:
            count += self.from_callers.count
        if self.to_callers is not None:
            count += self.to_callers.count
        return count

    cdef Py_ssize_t _node_count(self) noexcept:
        cdef Py_ssize_t count = 0
        if self.from_callers is not None:
            count += self.from_callers.list_count()
        if self.to_callers is not None:
            count += self.to_callers.list_count()
        return count
