"""Which addresses calls of one set of shapes came with: whether a graph for them pays."""

from libc.stdint cimport uint64_t, uintptr_t

cdef enum:
    REMEMBERED = 8


cdef class AddressHistory:
    cdef Py_ssize_t graph_count  # captured for this set of shapes
    cdef uintptr_t* last         # addresses of the last call that found no graph; inputs, then outputs
    cdef uint64_t hashes[REMEMBERED]  # of addresses that had no graph
    cdef int times[REMEMBERED]   # how often each came
    cdef Py_ssize_t next_place

    cdef bint earns_graph(self, uint64_t addresses) noexcept
    cdef void clear(self) noexcept
