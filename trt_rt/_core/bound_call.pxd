"""Calls with everything bound, which only enqueue; and how they are made and run."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.captured_graph cimport CapturedGraph
from trt_rt._core.graph_binding cimport GraphBinding
from trt_rt._core.shape_record cimport ShapeRecord
from trt_rt._core.vectorcall cimport vectorcallfunc


cdef class BoundCall:
    cdef object __weakref__      # an executor knows its calls without keeping them
    cdef vectorcallfunc vectorcall
    cdef BoundCalls executor
    cdef uint64_t identity       # the executor's `bound` while the context holds these addresses
    cdef ShapeRecord record
    cdef readonly tuple inputs   # kept alive, with `results`: their addresses are what is bound
    cdef object owners           # of the memory of `results`: ``set_`` on one lets go of it
    cdef tuple results           # one per output; None where TensorRT allocates
    cdef readonly object outputs  # what a call returns; None if TensorRT allocates an output
    cdef uintptr_t* addresses    # inputs, then outputs
    cdef CapturedGraph graph     # of this call, or None
    cdef uintptr_t stream        # whose order the memory of `owners` is freed in


cdef class BoundCalls(GraphBinding):
    cdef Py_ssize_t accepted     # number of arguments; -1 once closed, so that closing costs no test
    cdef uint64_t bound          # identity of the BoundCall whose addresses the context holds, or 0
    cdef uint64_t bound_calls    # made so far
    cdef object live_calls       # WeakSet of BoundCall
    cdef readonly uint64_t calls

    cdef object run_bound(self, BoundCall call)
    cdef int drop_graphs(self) except -1
    cdef bint has_graphs(self) except -1
    cdef void forget(self) noexcept

    cdef int _run_bound_graph(self, BoundCall call) except -1
    cdef int _use_on_this_stream(self, BoundCall call) except -1
    cdef int _restore(self, BoundCall call) except -1
