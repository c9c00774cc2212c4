"""Takes the arguments of a call: compares each with what is bound, and finds what their shapes lead to."""

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from trt_rt._core.bound_context cimport BoundContext
from trt_rt._core.dlpack cimport DLTensor
from trt_rt._core.shape_record cimport ShapeCache, ShapeRecord


cdef class InputBinding(BoundContext):
    cdef PyTypeObject* tensor_type
    cdef object is_neg
    cdef uintptr_t alignment
    cdef object placeholder      # memory that empty tensors are bound to
    cdef uintptr_t placeholder_address

    cdef ShapeCache records
    cdef ShapeRecord record      # of the last call's shapes; the context's too, unless binding is deferred
    cdef bint shapes_changed     # since the last call
    cdef bint addresses_changed  # since the last call, or the tensors are other objects
    cdef int forced_profile      # the one optimization profile that may be used, or -1
    cdef int64_t* key
    cdef Py_ssize_t key_capacity
    cdef object new_allocator
    cdef uint64_t shape_changes  # how often a call had other shapes than the one before
    cdef uint64_t careful_reads  # how many arguments took the slower route
    cdef bint allocate_all       # TensorRT allocates every output

    cdef int take_inputs(self, PyObject** args, Py_ssize_t count) except -1
    cdef int recall(self, ShapeRecord record) except -1
    cdef int use_record(self, ShapeRecord record) except -1
    cdef bint is_negative(self, PyObject* value) except -1
    cdef void forget(self) noexcept

    cdef int _take_input(self, Py_ssize_t index, PyObject* value) except -1
    cdef int _take_decoded(self, Py_ssize_t index, PyObject* value, const DLTensor* tensor) except -1
    cdef int _take_carefully(self, Py_ssize_t index, PyObject* value) except -1
    cdef int _take_values(self, Py_ssize_t index, const DLTensor* tensor) except -1
    cdef int _find_record(self) except -1
    cdef Py_ssize_t _build_key(self) except -1
    cdef ShapeRecord _derive(self, Py_ssize_t key_length)
    cdef int _use_allocators(self, ShapeRecord record) except -1
    cdef int _derive_output(self, ShapeRecord record, Py_ssize_t output) except -1
