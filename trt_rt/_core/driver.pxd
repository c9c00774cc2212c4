"""CUDA driver calls of the hot path, each checked."""

from cuda.bindings cimport cydriver
from libc.stdint cimport uintptr_t


cdef int check(cydriver.CUresult result, const char* call) except -1
cdef int need_context() except -1
cdef bint is_capturing(uintptr_t stream) except -1


cdef class StreamOrder:
    """Events, and a side stream, with which work on one stream is ordered after work on another."""

    cdef cydriver.CUcontext context
    cdef cydriver.CUstream side_stream
    cdef cydriver.CUevent entry_event
    cdef cydriver.CUevent exit_event
    cdef cydriver.CUevent done_event

    cdef int enter_side_stream(self) except -1
    cdef int leave_side_stream(self) except -1
    cdef int mark_done(self, uintptr_t stream) except -1
    cdef int follow(self, uintptr_t earlier, bint is_external, uintptr_t later) except -1
    cdef bint _record_last_work(self, uintptr_t stream, bint is_external) except -1
    cdef bint has_other_context(self) except -1
    cdef int push_context(self) except -1
    cdef int pop_context(self) except -1
    cdef int wait_for(self, uintptr_t stream, bint is_external) except -1
