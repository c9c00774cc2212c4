"""What a set of input shapes leads to, and the LRU that remembers it.

A loop that alternates between shapes finds each again by a scan of integers: a few dozen comparisons, no
Python object. Capacities are small, so a scan beats a hash table.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

from trt_rt._core.address_history cimport AddressHistory

from trt_rt._core.dlpack import view_of


cdef class OutputBuffers:
    """Callers get views, so that nothing they do to one (``resize_``, ``set_``) frees or moves the memory."""

    def __cinit__(self, tuple buffers):
        cdef Py_ssize_t output
        self.buffers = buffers
        self.result = ()
        self.views = [None] * len(buffers)
        self.addresses = <uintptr_t*> PyMem_Malloc(max(len(buffers), 1) * sizeof(uintptr_t))
        self.layouts = <TensorLayout*> PyMem_Malloc(max(len(buffers), 1) * sizeof(TensorLayout))
        if self.addresses == NULL or self.layouts == NULL:
            raise MemoryError()
        for output in range(len(buffers)):
            self.addresses[output] = buffers[output].data_ptr()
            self.renew_view(output)

    cdef int set_layouts(self, const TensorLayout* layouts) except -1:
        memcpy(self.layouts, layouts, len(self.views) * sizeof(TensorLayout))
        return 0

    cdef int renew_view(self, Py_ssize_t output) except -1:
        self.views[output] = view_of(self.buffers[output])
        self.result = self.views[0] if len(self.views) == 1 else tuple(self.views)
        return 0

    def __dealloc__(self):
        PyMem_Free(self.addresses)
        PyMem_Free(self.layouts)


cdef class ShapeRecord:
    def __cinit__(self, Py_ssize_t key_length, Py_ssize_t input_count, Py_ssize_t output_count):
        cdef Py_ssize_t count = input_count + output_count
        self.key_length = key_length
        self.statics = [None] * count
        self.static_addresses = <uintptr_t*> PyMem_Calloc(max(count, 1), sizeof(uintptr_t))
        self.ring = []
        self.history = AddressHistory(count)
        self.key = <int64_t*> PyMem_Malloc(max(key_length, 1) * sizeof(int64_t))
        self.outputs = <TensorLayout*> PyMem_Malloc(max(output_count, 1) * sizeof(TensorLayout))
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


cdef class ShapeCache:
    def __cinit__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.records = []

    cdef ShapeRecord find(self, const int64_t* key, Py_ssize_t length):
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
            self.records.remove(min(self.records, key=_last_used))
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


def _last_used(ShapeRecord record):
    return record.last_used
