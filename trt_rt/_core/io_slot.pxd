"""One I/O tensor as the hot path sees it: what the engine wants, and what the context holds now."""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t

from trt_rt._core.dlpack cimport MAX_DIMS, DLTensor, pack_device, pack_dtype


cdef struct TensorLayout:
    # A contiguous tensor on a device. Integers, so that a comparison with a DLTensor is integers too.
    uint32_t dtype
    uint64_t device
    int32_t ndim
    int64_t shape[MAX_DIMS]


cdef struct IOSlot:
    TensorLayout layout       # of the call under way; ndim is -1 while unknown
    uintptr_t address         # what the context holds; 0 while unknown
    uintptr_t next_address    # what this call binds
    PyObject* last_object     # identity of the tensor last checked; borrowed, never dereferenced
    PyObject* last_reference  # weak, to the same; another object may come to lie where one that has gone lay
    bint is_dynamic           # its shape is told to TensorRT
    bint is_shape_tensor      # host memory, read by value
    bint may_be_negative      # one element: contiguous even in z.conj().imag, which still waits to be negated
    bint is_written           # an output aliases it: the engine writes into the caller's memory
    int64_t* values           # shape tensor: our copy, at an address that never changes
    size_t value_capacity     # bytes at `values`


cdef inline int64_t layout_bytes(const TensorLayout* layout) noexcept nogil:
    cdef int64_t count = (layout.dtype >> 8) & 0xFF
    cdef int32_t i
    for i in range(layout.ndim):
        count *= layout.shape[i]
    return count >> 3


cdef inline bint is_contiguous(const DLTensor* tensor) noexcept nogil:
    """Whether elements lie one after the other; dimensions of size 1 may have any stride."""
    cdef int64_t expected = 1
    cdef int32_t i
    if tensor.strides == NULL:  # DLPack: no strides means contiguous
        return True
    for i in range(tensor.ndim - 1, -1, -1):
        if tensor.shape[i] == 0:
            return True
        if tensor.shape[i] != 1 and tensor.strides[i] != expected:
            return False
        expected *= tensor.shape[i]
    return True


cdef inline bint is_bindable_as(const DLTensor* tensor, const TensorLayout* layout) noexcept nogil:
    """Whether the tensor has this very layout: the steady state, in one pass.

    May say False of a tensor that is as good (page-locked, or without elements): the careful functions
    below decide then.
    """
    cdef int64_t expected = 1
    cdef int32_t i
    if (
        pack_dtype(tensor.dtype) != layout.dtype
        or (
            (<uint64_t> tensor.device.device_type << 32) | <uint32_t> tensor.device.device_id
        ) != layout.device
        or tensor.ndim != layout.ndim
        or tensor.strides == NULL
    ):
        return False
    for i in range(tensor.ndim - 1, -1, -1):
        if tensor.shape[i] != layout.shape[i] or (tensor.strides[i] != expected and tensor.shape[i] != 1):
            return False
        expected *= tensor.shape[i]
    return True


cdef inline bint same_kind(const TensorLayout* layout, const DLTensor* tensor) noexcept nogil:
    """Whether dtype and device are those of `layout`."""
    return (
        pack_dtype(tensor.dtype) == layout.dtype
        and pack_device(tensor.device.device_type, tensor.device.device_id) == layout.device
    )


cdef inline bint same_shape(const TensorLayout* layout, const DLTensor* tensor) noexcept nogil:
    cdef int32_t i
    if tensor.ndim != layout.ndim:
        return False
    for i in range(tensor.ndim):
        if tensor.shape[i] != layout.shape[i]:
            return False
    return True


cdef inline void copy_shape(TensorLayout* layout, const DLTensor* tensor) noexcept nogil:
    cdef int32_t i
    layout.ndim = tensor.ndim
    for i in range(tensor.ndim):
        layout.shape[i] = tensor.shape[i]
