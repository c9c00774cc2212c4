"""PyTorch's DLPack exchange API, and tensors over memory at a given address."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF

import torch

from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.errors import BackendError, InputTypeError


cdef DLExchangeAPI* _api = NULL

# DLPack's type codes (DLDataTypeCode) and bits of every dtype that a TensorRT I/O tensor can have.
cdef dict _CODES = {
    torch.float32: (2, 32),
    torch.float16: (2, 16),
    torch.bfloat16: (4, 16),
    torch.int8: (0, 8),
    torch.int32: (0, 32),
    torch.int64: (0, 64),
    torch.uint8: (1, 8),
    torch.bool: (6, 8),
    torch.float8_e4m3fn: (10, 8),
}


cdef DLExchangeAPI* torch_exchange_api() except NULL:
    """Return the API table of torch.Tensor, which lives as long as the process."""
    global _api
    cdef DLExchangeHeader* header
    if _api != NULL:
        return _api
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        raise BackendError(
            f"trt_rt reads tensors through DLPack's C exchange API, which PyTorch has since 2.10, but this "
            f"is PyTorch {torch.__version__}. Install torch>=2.10."
        )
    header = <DLExchangeHeader*> PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
    while header != NULL and header.version.major != 1:
        header = header.prev_api
    if header == NULL or (<DLExchangeAPI*> header).dltensor_from_py_object_no_sync == NULL:
        raise BackendError(
            f"PyTorch {torch.__version__} has no DLPack exchange API of version 1 with borrowed tensors, "
            f"which trt_rt needs. Install another torch release from 2.10 on."
        )
    _api = <DLExchangeAPI*> header
    return _api


cdef uint32_t dtype_code(object dtype) except? 0:
    """Return a torch dtype as `pack_dtype` does."""
    cdef DLDataType packed
    if dtype not in _CODES:
        raise InputTypeError(f"TensorRT has no I/O tensors of {dtype}; it has {[str(d) for d in _CODES]}.")
    packed.code, packed.bits = _CODES[dtype]
    packed.lanes = 1
    return pack_dtype(packed)


cdef struct _Block:
    DLManagedTensor managed
    int64_t shape[MAX_DIMS]
    int64_t strides[MAX_DIMS]


cdef void _release(DLManagedTensor* managed) noexcept with gil:
    # PyTorch may free the tensor on a thread that does not hold the GIL.
    cdef object owner = <object> managed.manager_ctx
    Py_DECREF(owner)
    PyMem_Free(<_Block*> managed)


def tensor_from_address(address, shape, dtype, device, owner=None):
    """Return a tensor over memory that it does not own.

    Parameters
    ----------
    address : int
        The first byte, in the device's address space. 0 is allowed only for a tensor without elements.
    shape : sequence of int
        At most 8 dimensions. The layout is contiguous.
    dtype : torch.dtype
        A dtype that TensorRT has.
    device : torch.device
        ``cpu``, or ``cuda`` with an index.
    owner : object, optional
        An object that is kept alive as long as the tensor's storage.

    Returns
    -------
    torch.Tensor
        The tensor cannot be resized, so nobody can free the memory through it. ``record_stream`` does nothing
        on it.

    Raises
    ------
    InputTypeError
        TensorRT has no such dtype.
    ValueError
        There are more than 8 dimensions, a negative one, or a null address for a tensor with elements.
    """
    cdef DLExchangeAPI* api = torch_exchange_api()
    cdef Py_ssize_t ndim = len(shape)
    cdef uintptr_t data = address
    cdef int64_t stride = 1
    cdef int64_t count = 1
    cdef Py_ssize_t i
    cdef void* result = NULL
    cdef _Block* block
    dtype_code(dtype)
    if ndim > MAX_DIMS or any(size < 0 for size in shape):
        raise ValueError(f"shape {tuple(shape)}: TensorRT has at most {MAX_DIMS} dimensions, none negative")
    block = <_Block*> PyMem_Malloc(sizeof(_Block))
    if block == NULL:
        raise MemoryError()
    for i in range(ndim - 1, -1, -1):
        block.shape[i] = shape[i]
        block.strides[i] = stride
        stride *= max(block.shape[i], 1)
        count *= block.shape[i]
    if data == 0 and count != 0:
        PyMem_Free(block)
        raise ValueError(f"a tensor of shape {tuple(shape)} cannot lie at address 0")
    block.managed.version.major = 1
    block.managed.version.minor = 1
    block.managed.flags = 0
    block.managed.deleter = _release
    block.managed.manager_ctx = <void*> owner
    block.managed.dl_tensor.data = <void*> data
    block.managed.dl_tensor.byte_offset = 0
    block.managed.dl_tensor.ndim = <int32_t> ndim
    block.managed.dl_tensor.shape = block.shape
    block.managed.dl_tensor.strides = block.strides
    block.managed.dl_tensor.dtype.code, block.managed.dl_tensor.dtype.bits = _CODES[dtype]
    block.managed.dl_tensor.dtype.lanes = 1
    block.managed.dl_tensor.device.device_type = DL_CUDA if device.type == "cuda" else DL_CPU
    block.managed.dl_tensor.device.device_id = device.index or 0
    Py_INCREF(owner)
    try:
        api.managed_tensor_to_py_object_no_sync(&block.managed, &result)
    except BaseException:
        _release(&block.managed)
        raise
    tensor = <object> result
    Py_DECREF(tensor)  # the API hands over one reference; `tensor` took its own
    return tensor


def view_of(owner):
    """Return a view of a tensor, through which its memory cannot be freed, moved or resized.

    Parameters
    ----------
    owner : torch.Tensor
        A contiguous tensor. The view keeps it alive. Nobody else may use it from now on.

    Returns
    -------
    torch.Tensor
        A tensor of the same shape, dtype and device. It is an ordinary tensor even if it is made under
        ``torch.inference_mode``.
    """
    with torch._C._InferenceMode(False), plain_pytorch():  # both in C
        return tensor_from_address(owner.data_ptr(), owner.shape, owner.dtype, owner.device, owner)


def can_view(dtype):
    """Whether `view_of` takes tensors of a dtype: one of those that TensorRT has."""
    return dtype in _CODES
