"""The executor: takes tensors, binds and enqueues them, returns the outputs."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.dlpack cimport DLTensor
from trt_rt._core.input_binding cimport InputBinding
from trt_rt._core.shape_record cimport OutputBuffers, ShapeRecord


cdef class BoundCall:
    cdef Executor executor
    cdef uint64_t identity       # the executor's `bound` while the context holds these addresses
    cdef ShapeRecord record
    cdef readonly tuple inputs   # kept alive, with `results`: their addresses are what is bound
    cdef object owners           # of the memory of `results`: ``set_`` on one lets go of it
    cdef tuple results           # one per output; None where TensorRT allocates
    cdef readonly object outputs # what a call returns; None if TensorRT allocates an output
    cdef uintptr_t* addresses    # inputs, then outputs


cdef class Executor(InputBinding):
    cdef Py_ssize_t accepted     # number of arguments; -1 once closed, so that closing costs no test
    cdef Py_ssize_t* aliased     # per output: index of the input whose memory it lies in, or -1
    cdef bint has_aliases
    cdef object allocate
    cdef object allocate_on_host
    cdef uint64_t bound          # identity of the BoundCall whose addresses the context holds, or 0
    cdef uint64_t bound_calls    # made so far
    cdef Py_ssize_t ring_size    # sets of pre-allocated outputs; 0 for fresh ones
    cdef uint64_t ring_generation  # changes with ring_size: rings of before are not used
    cdef OutputBuffers buffers   # the set that the next call with these shapes uses, or None

    cdef object run(self, PyObject** args, Py_ssize_t count, object out)
    cdef object run_bound(self, BoundCall call)

    cdef int _begin(self, Py_ssize_t count) except -1
    cdef int _end(self, bint succeeded) except -1
    cdef void _forget_all(self) noexcept
    cdef int _tidy(self, bint succeeded) except -1
    cdef int _restore(self, BoundCall call) except -1
    cdef object _bind_outputs(self, PyObject** args, object out)
    cdef object _bind_preallocated(self)
    cdef int _choose_buffers(self) except -1
    cdef OutputBuffers _new_buffers(self)
    cdef object _bind_fresh(self, PyObject** args)
    cdef object _bind_callers(self, PyObject** args, object out)
    cdef object _fail_allocation(self, Py_ssize_t output)
    cdef object _fresh_output(self, PyObject** args, Py_ssize_t output)
    cdef object _aliased_output(self, PyObject** args, Py_ssize_t output)
    cdef int _take_output(self, PyObject** args, Py_ssize_t output, object value) except -1
    cdef int _bind_output(self, Py_ssize_t output, const DLTensor* tensor) except -1
    cdef bint _overlaps(self, Py_ssize_t output) noexcept
    cdef object _collect(self, object result)
