"""The captured graphs of an executor, by shapes and addresses."""

from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.captured_graph cimport CapturedGraph
from trt_rt._core.shape_record cimport ShapeRecord


cdef class GraphCache:
    cdef Py_ssize_t capacity
    cdef uint64_t clock
    cdef uint64_t* hashes        # of the key of each graph: the search compares these first
    cdef tuple graphs            # of CapturedGraph; the collector would empty a list before its owner waits

    cdef int resize(self, Py_ssize_t capacity) except -1
    cdef CapturedGraph find(self, uint64_t key_hash, ShapeRecord record, const uintptr_t* addresses)
    cdef bint has_room(self, Py_ssize_t share) noexcept
    cdef CapturedGraph least_recent(self)
    cdef int remove(self, CapturedGraph graph) except -1
    cdef int add(self, uint64_t key_hash, CapturedGraph graph) except -1
    cdef void mark_used(self, CapturedGraph graph) noexcept
    cdef int clear(self) except -1


cdef uint64_t hash_key(ShapeRecord record, const uintptr_t* addresses, Py_ssize_t count) noexcept
