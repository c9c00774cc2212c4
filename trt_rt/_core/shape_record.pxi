"""The consequences of a set of input shapes, and their cache.

A loop that alternates between shapes finds each again by a scan of integers: a few dozen comparisons and no
Python object. Capacities are small, so a scan is cheaper than a hash table.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

from trt_rt._core.dlpack cimport DLExchangeAPI, DLTensor, read_tensor
from trt_rt._core.python_objects cimport list_item
from trt_rt._core.tensor_layout cimport TensorLayout, is_bindable_as

from trt_rt._core.dlpack import view_of


@cython.final
cdef class OutputBuffers:
    """One set of pre-allocated outputs.

    Callers get views, so that nothing they do to one (``resize_``, ``set_``) frees or moves the memory.
    """

    cdef tuple buffers           # the tensors that own the memory; nobody else has them
    cdef list views              # what callers get: the same memory, not resizable
    cdef object result           # the view, or a tuple of them
    cdef uintptr_t* addresses    # 0 for an output without elements
    cdef TensorLayout* layouts   # of the views, as callers should find them
    cdef TensorPlace* places     # of the views, when callers got them, if calls can read them

    def __cinit__(self, tuple buffers not None):
        cdef Py_ssize_t output
        self.buffers = buffers
        self.result = ()
        self.views = [None] * len(buffers)
        self.addresses = <uintptr_t*> PyMem_Calloc(max(len(buffers), 1), sizeof(uintptr_t))
        self.layouts = <TensorLayout*> PyMem_Calloc(max(len(buffers), 1), sizeof(TensorLayout))
        self.places = <TensorPlace*> PyMem_Calloc(max(len(buffers), 1), sizeof(TensorPlace))
        if self.addresses == NULL or self.layouts == NULL or self.places == NULL:
            raise MemoryError()
        for output in range(len(buffers)):
            self.addresses[output] = buffers[output].data_ptr()
            self.renew_view(output)

    def __dealloc__(self):
        PyMem_Free(self.addresses)
        PyMem_Free(self.layouts)
        PyMem_Free(self.places)

    cdef int set_layouts(self, const TensorLayout* layouts) except -1:
        memcpy(self.layouts, layouts, len(self.views) * sizeof(TensorLayout))
        return 0

    cdef inline bint is_unaltered(self, Py_ssize_t output, const DLExchangeAPI* api) except -1:
        """Whether the caller has left a view as it was: no other shape, memory, sign or gradient."""
        cdef PyObject* view = list_item(<PyObject*> self.views, output)
        cdef DLTensor tensor
        if has_readable_place(self.layouts[output].ndim):
            # The dispatch keys of a negative view differ, so its sign is compared too.
            return distance_of(view, &self.places[output]) == 0 and not requires_grad(view)
        if (
            not read_tensor(api, view, &tensor)
            or <uintptr_t> tensor.data != self.addresses[output]
            or not is_bindable_as(&tensor, &self.layouts[output])
        ):
            return False
        return not is_negative(view) and not requires_grad(view)

    cdef int renew_view(self, Py_ssize_t output) except -1:
        """Replace the view that the caller has, whose memory the next call overwrites."""
        view = self.views[output]
        # The caller can have put any tensor in its place, with swap_tensors.
        if view is not None and not is_inference(<PyObject*> view):
            mark_overwritten(<PyObject*> view)
        view = self.views[output] = view_of(self.buffers[output])
        if has_readable_place(view.ndim):
            read_place(<PyObject*> view, &self.places[output])
        self.result = self.views[0] if len(self.views) == 1 else tuple(self.views)
        return 0


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
