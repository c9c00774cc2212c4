# cython: boundscheck=False, wraparound=False
"""The captured graphs of an executor, by shapes and addresses.

A loop over several shapes, or one whose tensors lie at a few addresses in turn, finds each graph again by a
scan of integers.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from trt_rt._core.captured_graph cimport CapturedGraph, is_for
from trt_rt._core.shape_record cimport ShapeRecord, hash_words

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]


@cython.no_gc_clear
cdef class GraphCache:
    def __cinit__(self):
        self.graphs = ()

    def __dealloc__(self):
        PyMem_Free(self.hashes)

    cdef int resize(self, Py_ssize_t capacity) except -1:
        """Hold at most `capacity` graphs; it is empty when this is called."""
        cdef void* grown = PyMem_Realloc(self.hashes, max(capacity, 1) * sizeof(uint64_t))
        if grown == NULL:
            raise MemoryError()
        self.hashes = <uint64_t*> grown
        self.capacity = capacity
        return 0

    cdef CapturedGraph find(self, uint64_t key_hash, ShapeRecord record, const uintptr_t* addresses):
        """The graph of these shapes and addresses, or None."""
        cdef Py_ssize_t index
        for index in range(len(self.graphs)):
            if self.hashes[index] == key_hash:
                graph = <CapturedGraph> (<PyTupleObject*> self.graphs).ob_item[index]
                if is_for(graph, record, addresses):
                    return graph
        return None

    cdef bint has_room(self, Py_ssize_t share) noexcept:
        """Whether one of `share` equal parts of the capacity holds another graph."""
        return len(self.graphs) * share < self.capacity

    cdef CapturedGraph least_recent(self):
        """The graph to let go of before another is added, or None while there is room."""
        if len(self.graphs) < self.capacity:
            return None
        return min(self.graphs, key=_last_used)

    cdef int remove(self, CapturedGraph graph) except -1:
        cdef Py_ssize_t index = self.graphs.index(graph)
        cdef Py_ssize_t after
        for after in range(index + 1, len(self.graphs)):
            self.hashes[after - 1] = self.hashes[after]
        self.graphs = self.graphs[:index] + self.graphs[index + 1:]
        return 0

    cdef int add(self, uint64_t key_hash, CapturedGraph graph) except -1:
        self.hashes[len(self.graphs)] = key_hash
        self.graphs += (graph,)
        self.mark_used(graph)
        return 0

    cdef void mark_used(self, CapturedGraph graph) noexcept:
        self.clock += 1
        graph.last_used = self.clock

    cdef int clear(self) except -1:
        self.graphs = ()
        return 0


def _last_used(CapturedGraph graph):
    return graph.last_used


cdef uint64_t hash_key(ShapeRecord record, const uintptr_t* addresses, Py_ssize_t count) noexcept:
    return hash_words(<const int64_t*> addresses, count) ^ <uint64_t> <uintptr_t> <PyObject*> record
