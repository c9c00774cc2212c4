"""One executor per stream that calls a module."""

from libc.stdint cimport uint64_t, uintptr_t
from libcpp.mutex cimport mutex

from trt_rt._core.dlpack cimport DLExchangeAPI
from trt_rt._core.executor cimport Executor


cdef class ExecutorPool:
    cdef DLExchangeAPI* api
    cdef int device_index
    cdef bint on_cuda
    cdef object make_executor
    cdef list executors          # the one of each route
    # Nothing here changes in the steady state: what one thread writes, all others have to fetch anew.
    cdef uintptr_t* routes       # streams; on a CPU, threads
    cdef Py_ssize_t count        # routes in use
    cdef readonly Py_ssize_t capacity
    cdef mutex lock              # of the routes

    cdef uintptr_t callers_route(self) except? 1
    cdef Executor select(self, uintptr_t route)
    cdef Executor _add_route(self, uintptr_t route)
    cdef Executor _lend_to_capture(self, uintptr_t route)
    cdef uint64_t _last_used(self, Py_ssize_t index) noexcept
