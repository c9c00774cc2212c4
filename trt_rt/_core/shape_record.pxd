from libc.stdint cimport int64_t, uint64_t, uintptr_t

from trt_rt._core.address_history cimport AddressHistory
from trt_rt._core.io_slot cimport TensorLayout


cdef class OutputBuffers:
    """One set of pre-allocated outputs."""

    cdef tuple buffers           # the tensors that own the memory; nobody else has them
    cdef list views              # what callers get: the same memory, not resizable
    cdef object result           # the view, or a tuple of them
    cdef uintptr_t* addresses    # 0 for an output without elements

    cdef TensorLayout* layouts   # of the views, as callers should find them

    cdef int set_layouts(self, const TensorLayout* layouts) except -1
    cdef int renew_view(self, Py_ssize_t output) except -1


cdef class ShapeRecord:
    """What follows from one set of input shapes and shape-tensor values."""

    cdef uint64_t key_hash
    cdef int64_t* key
    cdef Py_ssize_t key_length
    cdef uint64_t last_used
    cdef tuple input_shapes      # a tuple for every input, as TensorRT takes it
    cdef int profile
    cdef TensorLayout* outputs   # of every output; of a data-dependent one only dtype and device
    cdef list allocations        # for every output: arguments of the allocation call
    cdef bint is_data_dependent  # some output's shape is known after the run only
    cdef list ring               # of OutputBuffers
    cdef uint64_t ring_generation
    cdef Py_ssize_t turn         # the next of the ring
    cdef list statics            # per I/O tensor: what graphs read and write in place of callers' tensors
    cdef uintptr_t* static_addresses  # of them; 0 where there is none
    cdef bint gave_statics       # callers have had inputs' static tensors
    cdef AddressHistory history  # of calls through graphs

    cdef int set_key(self, const int64_t* key) except -1
    cdef int drop_buffers(self) except -1
    cdef int set_static(self, Py_ssize_t index, object tensor) except -1


cdef class ShapeCache:
    """The least recently used of a bounded number of records is dropped."""

    cdef readonly Py_ssize_t capacity
    cdef list records
    cdef uint64_t clock

    cdef ShapeRecord find(self, const int64_t* key, Py_ssize_t length)
    cdef int insert(self, ShapeRecord record) except -1
    cdef int drop_buffers(self) except -1
    cdef int clear(self) except -1


cdef uint64_t hash_words(const int64_t* words, Py_ssize_t length) noexcept nogil
