# cython: boundscheck=False, wraparound=False
"""Which addresses calls of one set of shapes came with: whether a graph for them pays."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memset

# Capturing takes as long as copying some hundred times (on an H200 a copy takes 0.3 us of host time, and
# 1.3 us on the GPU; a capture some tenths of a millisecond). So addresses get a graph once they have cost
# as much without it, and whatever comes, no more than about twice the least time is spent.
cdef enum:
    EARNED_AFTER = 256


cdef class AddressHistory:
    def __cinit__(self, Py_ssize_t count):
        self.last = <uintptr_t*> PyMem_Calloc(max(count, 1), sizeof(uintptr_t))
        if self.last == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.last)

    cdef bint earns_graph(self, uint64_t addresses) noexcept:
        """Count a call with addresses (their hash) that have no graph; whether they now deserve one."""
        cdef Py_ssize_t place
        for place in range(REMEMBERED):
            if self.hashes[place] == addresses:
                self.times[place] += 1
                if self.times[place] < EARNED_AFTER:
                    return False
                self.times[place] = 0
                return True
        self.hashes[self.next_place] = addresses
        self.times[self.next_place] = 1
        self.next_place = (self.next_place + 1) % REMEMBERED
        return False

    cdef void clear(self) noexcept:
        """All graphs are gone."""
        self.graph_count = 0
        memset(self.hashes, 0, sizeof(self.hashes))
        memset(self.times, 0, sizeof(self.times))
