"""The executor: takes tensors, binds and enqueues them, returns the outputs."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.bound_call cimport BoundCalls
from trt_rt._core.vectorcall cimport vectorcallfunc


cdef class Executor(BoundCalls):
    cdef vectorcallfunc vectorcall
    cdef uint64_t last_used      # time stamp of the pool: when the last call began

    cdef object run(self, uintptr_t stream, PyObject** args, Py_ssize_t count, object out)
    cdef int change_stream(self, uintptr_t stream) except -1

    cdef object _run_with_graphs(self, PyObject** args, Py_ssize_t count, object out)
