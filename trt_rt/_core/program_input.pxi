"""The kind of tensor that a captured program takes as one of its arguments."""

from libc.stdint cimport int32_t, int64_t, uintptr_t

from trt_rt._core.dlpack cimport MAX_DIMS, DLTensor, element_count, pack_device, pack_dtype
from trt_rt._core.tensor_layout cimport TensorLayout, copy_shape, is_contiguous


cdef struct ProgramInput:
    TensorLayout layout
    int64_t strides[MAX_DIMS]    # of tensors that are dense, but in another order than C's
    bint is_contiguous
    uintptr_t static_address
    uintptr_t address            # of the caller's tensor in this call


cdef void describe_layout(TensorLayout* layout, const DLTensor* tensor) noexcept:
    """Describe a tensor by its dtype, device and shape."""
    layout.dtype = pack_dtype(tensor.dtype)
    layout.device = pack_device(tensor.device.device_type, tensor.device.device_id)
    copy_shape(layout, tensor)


cdef bint is_dense(const DLTensor* tensor) noexcept:
    """Whether the elements fill one stretch of memory, each once, in any order of the dimensions."""
    cdef int64_t expected = 1
    cdef int32_t step, dimension
    cdef bint found
    if is_contiguous(tensor) or element_count(tensor) == 0:
        return is_contiguous(tensor)
    for step in range(tensor.ndim):
        if expected == element_count(tensor):
            return True
        found = False
        for dimension in range(tensor.ndim):
            if tensor.shape[dimension] != 1 and tensor.strides[dimension] == expected:
                expected *= tensor.shape[dimension]
                found = True
                break
        if not found:
            return False
    return expected == element_count(tensor)


cdef bint same_strides(const ProgramInput* expected, const DLTensor* tensor) noexcept:
    """Whether a tensor of the input's shape has its strides; dimensions of size 1 may have any."""
    cdef int32_t dimension
    if tensor.strides == NULL:
        return False
    for dimension in range(tensor.ndim):
        if tensor.shape[dimension] != 1 and tensor.strides[dimension] != expected.strides[dimension]:
            return False
    return True
