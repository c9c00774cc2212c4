"""The layout of a contiguous tensor, and its comparison with what DLPack says about a tensor."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from trt_rt._core.dlpack cimport MAX_DIMS, DLTensor, pack_device, pack_dtype


cdef struct TensorLayout:
    # Integers only, so that a comparison with a DLTensor is a comparison of integers.
    uint32_t dtype            # pack_dtype
    uint64_t device           # pack_device
    int32_t ndim
    int64_t shape[MAX_DIMS]


cdef inline int64_t layout_bytes(const TensorLayout* layout) noexcept nogil:
    """Size of a tensor with this layout."""
    cdef int64_t count = (layout.dtype >> 8) & 0xFF
    cdef int32_t i
    for i in range(layout.ndim):
        count *= layout.shape[i]
    return count >> 3


cdef inline bint is_contiguous(const DLTensor* tensor) noexcept nogil:
    """Whether the elements follow one another; dimensions of size 1 may have any stride."""
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
    """Whether the tensor has this layout: the check of the steady state, in one pass.

    False also for some tensors that fit (page-locked, or without elements). The functions below then decide.
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
    """Whether the tensor has the dtype and the device of `layout`."""
    return (
        pack_dtype(tensor.dtype) == layout.dtype
        and pack_device(tensor.device.device_type, tensor.device.device_id) == layout.device
    )


cdef inline bint same_shape(const TensorLayout* layout, const DLTensor* tensor) noexcept nogil:
    """Whether the tensor has the shape of `layout`."""
    cdef int32_t i
    if tensor.ndim != layout.ndim:
        return False
    for i in range(tensor.ndim):
        if tensor.shape[i] != layout.shape[i]:
            return False
    return True


cdef inline void copy_shape(TensorLayout* layout, const DLTensor* tensor) noexcept nogil:
    """Give `layout` the shape of the tensor."""
    cdef int32_t i
    layout.ndim = tensor.ndim
    for i in range(tensor.ndim):
        layout.shape[i] = tensor.shape[i]
