"""Which addresses the calls with one set of shapes came with, and whether a graph for them pays."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memset

cdef enum:
    REMEMBERED = 8
    # A capture takes as long as some hundred copies (on an H200 giving a copy node new addresses takes 0.3
    # to 0.6 us, the copy 1.3 us on the GPU, a capture some tenths of a millisecond). Addresses get a graph
    # once copies have cost as much, so that a series of calls takes at most about twice its least time.
    EARNED_AFTER = 256


@cython.final
cdef class AddressHistory:
    """Counts calls by their addresses, for the calls that found no graph.

    Parameters
    ----------
    count : int
        How many I/O tensors there are.
    """

    cdef Py_ssize_t graph_count  # captured for this set of shapes
    cdef uintptr_t* last         # addresses of the last call that found no graph; inputs, then outputs
    cdef uint64_t hashes[REMEMBERED]  # of addresses that had no graph
    cdef int times[REMEMBERED]   # how often each came
    cdef Py_ssize_t next_place

    def __cinit__(self, Py_ssize_t count):
        self.last = <uintptr_t*> PyMem_Calloc(max(count, 1), sizeof(uintptr_t))
        if self.last == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.last)

    cdef bint earns_graph(self, uint64_t addresses) noexcept:
        """Count a call whose addresses (given by their hash) have no graph; whether they get one now."""
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
        """Start again, after all graphs were dropped."""
        self.graph_count = 0
        memset(self.hashes, 0, sizeof(self.hashes))
        memset(self.times, 0, sizeof(self.times))
