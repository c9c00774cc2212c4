"""The consequences of a set of input shapes, and their cache.

A loop that alternates between shapes finds each again by a scan of integers: a few dozen comparisons and no
Python object. Capacities are small, so a scan is cheaper than a hash table.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int64_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

from trt_rt._core.tensor_layout cimport TensorLayout


@cython.final
cdef class ShapeRecord:
    """The consequences of one set of input shapes and shape-tensor values."""

    cdef uint64_t key_hash
    cdef int64_t* key
    cdef Py_ssize_t key_length
    cdef uint64_t last_used
    cdef tuple input_shapes      # a tuple for every input, as TensorRT takes it
    cdef int profile
    cdef TensorLayout* outputs   # of every output; of a data-dependent one only dtype and device
    cdef list allocations        # for every output: arguments of the allocation call
    cdef bint is_data_dependent  # TensorRT allocates some output: its shape is known after the run only
    cdef list ring               # of OutputBuffers
    cdef uint64_t ring_generation
    cdef Py_ssize_t turn         # the next of the ring
    cdef list statics            # per I/O tensor: what graphs read and write in place of callers' tensors
    cdef uintptr_t* static_addresses  # of them; 0 where there is none
    cdef bint gave_statics       # callers have had inputs' static tensors
    cdef AddressHistory history  # of calls through graphs

    def __cinit__(self, Py_ssize_t key_length, Py_ssize_t input_count, Py_ssize_t output_count):
        cdef Py_ssize_t count = input_count + output_count
        self.key_length = key_length
        self.statics = [None] * count
        self.static_addresses = <uintptr_t*> PyMem_Calloc(max(count, 1), sizeof(uintptr_t))
        self.ring = []
        self.history = AddressHistory(count)
        self.key = <int64_t*> PyMem_Calloc(max(key_length, 1), sizeof(int64_t))
        self.outputs = <TensorLayout*> PyMem_Calloc(max(output_count, 1), sizeof(TensorLayout))
        if self.key == NULL or self.outputs == NULL or self.static_addresses == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.static_addresses)
        PyMem_Free(self.key)
        PyMem_Free(self.outputs)

    cdef int set_key(self, const int64_t* key) except -1:
        memcpy(self.key, key, self.key_length * sizeof(int64_t))
        self.key_hash = hash_words(key, self.key_length)
        return 0

    cdef int drop_buffers(self) except -1:
        """Let go of the memory that calls with these shapes were given."""
        cdef Py_ssize_t index
        self.ring.clear()
        self.turn = 0
        for index in range(len(self.statics)):
            self.statics[index] = None
            self.static_addresses[index] = 0
        return 0

    cdef int set_static(self, Py_ssize_t index, object tensor) except -1:
        self.statics[index] = tensor
        self.static_addresses[index] = tensor.data_ptr()
        return 0


cdef uint64_t hash_words(const int64_t* words, Py_ssize_t length) noexcept nogil:
    """FNV-1a over 64-bit words; equal keys are compared in full, so collisions only cost time."""
    cdef uint64_t value = 14695981039346656037ULL
    cdef Py_ssize_t i
    for i in range(length):
        value = (value ^ <uint64_t> words[i]) * 1099511628211ULL
    return value


@cython.final
cdef class ShapeCache:
    """The shape records of an executor. The least recently used of a bounded number is dropped.

    Parameters
    ----------
    capacity : int
        How many records at most.
    """

    cdef Py_ssize_t capacity
    cdef list records
    cdef uint64_t clock

    def __cinit__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.records = []

    cdef ShapeRecord find(self, const int64_t* key, Py_ssize_t length):
        """The record of a key, or None."""
        cdef uint64_t key_hash = hash_words(key, length)
        cdef ShapeRecord record
        for record in self.records:
            if (
                record.key_hash == key_hash
                and record.key_length == length
                and memcmp(record.key, key, length * sizeof(int64_t)) == 0
            ):
                self.clock += 1
                record.last_used = self.clock
                return record
        return None

    cdef int insert(self, ShapeRecord record) except -1:
        self.clock += 1
        record.last_used = self.clock
        if len(self.records) >= self.capacity:
            self.records.remove(min(self.records, key=_last_use_of_record))
        self.records.append(record)
        return 0

    cdef int drop_buffers(self) except -1:
        cdef ShapeRecord record
        for record in self.records:
            record.drop_buffers()
        return 0

    cdef int clear(self) except -1:
        self.records.clear()
        return 0


def _last_use_of_record(ShapeRecord record):
    return record.last_used
