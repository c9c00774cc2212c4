"""Binds the outputs of a call: fresh, pre-allocated, the caller's, or those that TensorRT allocates."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from trt_rt._core.dlpack cimport DLTensor
from trt_rt._core.input_binding cimport InputBinding
from trt_rt._core.shape_record cimport OutputBuffers


cdef class OutputBinding(InputBinding):
    cdef Py_ssize_t* aliased     # per output: index of the input whose memory it lies in, or -1
    cdef bint has_aliases
    cdef object allocate
    cdef object allocate_on_host
    cdef Py_ssize_t ring_size    # sets of pre-allocated outputs; 0 for fresh ones
    cdef uint64_t ring_generation  # changes with ring_size: rings of before are not used
    cdef OutputBuffers buffers   # the set that the next call with these shapes uses, or None

    cdef object bind_outputs(self, PyObject** args, object out)
    cdef object bind_preallocated(self)
    cdef object bind_fresh(self, PyObject** args)
    cdef object bind_callers(self, PyObject** args, object out)
    cdef object collect(self, object result)
    cdef void forget(self) noexcept

    cdef object allocate_output(self, Py_ssize_t output, DLTensor* tensor)
    cdef int _choose_buffers(self) except -1
    cdef OutputBuffers _new_buffers(self)
    cdef object _fresh_output(self, PyObject** args, Py_ssize_t output)
    cdef object _fail_allocation(self, Py_ssize_t output)
    cdef object _aliased_output(self, PyObject** args, Py_ssize_t output)
    cdef int _take_output(self, PyObject** args, Py_ssize_t output, object value) except -1
    cdef int _bind_output(self, Py_ssize_t output, const DLTensor* tensor) except -1
    cdef bint _overlaps(self, Py_ssize_t output) noexcept
