"""The C structs of DLPack 1.x, and functions that read a tensor through PyTorch's C exchange API.

The DLPack specification fixes the layout (dmlc/dlpack, include/dlpack/dlpack.h). This file declares the part
that trt_rt uses. It needs no installed header and no library.
"""

from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t


cdef extern from * nogil:
    """
    #ifndef TRT_RT_DLPACK_STRUCTS
    #define TRT_RT_DLPACK_STRUCTS
    #include <stdint.h>

    typedef struct { uint32_t major; uint32_t minor; } TrtRtDLVersion;
    typedef struct { int32_t device_type; int32_t device_id; } TrtRtDLDevice;
    typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } TrtRtDLDataType;
    typedef struct {
        void* data;
        TrtRtDLDevice device;
        int32_t ndim;
        TrtRtDLDataType dtype;
        int64_t* shape;
        int64_t* strides;
        uint64_t byte_offset;
    } TrtRtDLTensor;
    typedef struct TrtRtDLManagedTensor {
        TrtRtDLVersion version;
        void* manager_ctx;
        void (*deleter)(struct TrtRtDLManagedTensor*);
        uint64_t flags;
        TrtRtDLTensor dl_tensor;
    } TrtRtDLManagedTensor;
    typedef struct TrtRtDLExchangeHeader {
        TrtRtDLVersion version;
        struct TrtRtDLExchangeHeader* prev_api;
    } TrtRtDLExchangeHeader;
    typedef struct {
        TrtRtDLExchangeHeader header;
        void* managed_tensor_allocator;
        void* managed_tensor_from_py_object_no_sync;
        int (*managed_tensor_to_py_object_no_sync)(TrtRtDLManagedTensor*, void**);
        int (*dltensor_from_py_object_no_sync)(void*, TrtRtDLTensor*);
        int (*current_work_stream)(int32_t, int32_t, void**);
    } TrtRtDLExchangeAPI;

    static_assert(sizeof(TrtRtDLTensor) == 48, "DLTensor is 48 bytes in DLPack 1.x");
    static_assert(sizeof(TrtRtDLExchangeHeader) == 16, "the exchange header is 16 bytes in DLPack 1.x");
    static_assert(sizeof(TrtRtDLExchangeAPI) == 56, "the exchange API is 56 bytes in DLPack 1.x");
    #endif
    """
    ctypedef struct DLVersion "TrtRtDLVersion":
        uint32_t major
        uint32_t minor

    ctypedef struct DLDevice "TrtRtDLDevice":
        int32_t device_type
        int32_t device_id

    ctypedef struct DLDataType "TrtRtDLDataType":
        uint8_t code
        uint8_t bits
        uint16_t lanes

    ctypedef struct DLTensor "TrtRtDLTensor":
        void* data
        DLDevice device
        int32_t ndim
        DLDataType dtype
        int64_t* shape
        int64_t* strides
        uint64_t byte_offset

    ctypedef struct DLManagedTensor "TrtRtDLManagedTensor":
        DLVersion version
        void* manager_ctx
        void (*deleter)(DLManagedTensor*) noexcept
        uint64_t flags
        DLTensor dl_tensor

    ctypedef struct DLExchangeHeader "TrtRtDLExchangeHeader":
        DLVersion version
        DLExchangeHeader* prev_api

    ctypedef struct DLExchangeAPI "TrtRtDLExchangeAPI":
        DLExchangeHeader header
        int (*managed_tensor_to_py_object_no_sync)(DLManagedTensor*, void**) except -1
        # Gives borrowed pointers, which are valid while the object lives and keeps its shape.
        # Returns -1 with a Python exception on failure.
        int (*dltensor_from_py_object_no_sync)(void*, DLTensor*) noexcept
        int (*current_work_stream)(int32_t, int32_t, void**) except -1


cdef enum:
    DL_CPU = 1
    DL_CUDA = 2
    DL_CUDA_HOST = 3

# The largest number of dimensions of an I/O tensor: TensorRT's Dims::MAX_DIMS.
cdef enum:
    MAX_DIMS = 8


cdef inline uint32_t pack_dtype(DLDataType dtype) noexcept nogil:
    """Return a dtype as one integer, so that two dtypes are compared at once."""
    return <uint32_t> dtype.code | (<uint32_t> dtype.bits << 8) | (<uint32_t> dtype.lanes << 16)


cdef inline uint64_t pack_device(int32_t device_type, int32_t device_id) noexcept nogil:
    """Return a device as one integer. Page-locked host memory counts as host memory, with any index."""
    if device_type == DL_CPU or device_type == DL_CUDA_HOST:
        return <uint64_t> DL_CPU << 32
    return (<uint64_t> device_type << 32) | <uint32_t> device_id


cdef inline int64_t element_count(const DLTensor* tensor) noexcept nogil:
    cdef int64_t count = 1
    cdef int32_t i
    for i in range(tensor.ndim):
        count *= tensor.shape[i]
    return count


cdef inline uintptr_t current_stream(const DLExchangeAPI* api, int32_t device_index) except? 1:
    """Return the calling thread's current CUDA stream of a device."""
    cdef void* stream = NULL
    api.current_work_stream(DL_CUDA, device_index, &stream)
    return <uintptr_t> stream


cdef inline bint read_tensor(const DLExchangeAPI* api, PyObject* value, DLTensor* tensor) noexcept:
    """Describe a tensor. Returns False, with no exception set, if PyTorch cannot describe `value`."""
    if api.dltensor_from_py_object_no_sync(value, tensor) == 0:
        return True
    PyErr_Clear()
    return False


cdef inline bint read_plain_tensor(
    const DLExchangeAPI* api, PyTypeObject* tensor_type, PyObject* value, DLTensor* tensor
) noexcept:
    """Describe a tensor whose type is exactly `tensor_type`. Returns False for any other object."""
    return value.ob_type == tensor_type and read_tensor(api, value, tensor)


cdef DLExchangeAPI* torch_exchange_api() except NULL
cdef uint32_t dtype_code(object dtype) except? 0
