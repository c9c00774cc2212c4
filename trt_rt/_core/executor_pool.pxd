"""One executor per stream that calls a module."""

from libc.stdint cimport uint64_t, uintptr_t
from libcpp.mutex cimport mutex

from trt_rt._core.dlpack cimport DLExchangeAPI
from trt_rt._core.executor cimport Executor


cdef struct Route:
    uintptr_t stream             # or the calling thread, on a CPU
    uint64_t last_used


cdef class ExecutorPool:
    cdef DLExchangeAPI* api
    cdef int device_index
    cdef bint on_cuda
    cdef object make_executor
    cdef list executors          # the one of each route
    cdef Route* routes
    cdef Py_ssize_t count        # routes in use
    cdef readonly Py_ssize_t capacity
    cdef uint64_t clock
    cdef mutex lock              # of the routes

    cdef Executor select(self)
    cdef Executor _select_route(self, uintptr_t stream)
    cdef Executor _add_route(self, uintptr_t stream)
    cdef Executor _lend_to_capture(self, uintptr_t stream)
