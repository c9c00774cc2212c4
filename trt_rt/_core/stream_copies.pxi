"""Copies between tensors of one GPU, in the order of the current stream, without PyTorch's dispatcher."""

from cpython.object cimport PyObject, PyTypeObject
from cuda.bindings cimport cydriver

from trt_rt._core.dlpack cimport (
    DL_CUDA,
    DLExchangeAPI,
    DLTensor,
    current_stream,
    element_count,
    pack_dtype,
    read_plain_tensor,
    torch_exchange_api,
)
from trt_rt._core.driver cimport check
from trt_rt._core.tensor_layout cimport is_contiguous

import torch

cdef enum:
    MOST_COPIES = 4              # more are cheaper as one of PyTorch's kernels
    DL_COMPLEX = 5               # may still be waiting to be conjugated, which DLPack does not tell

cdef PyTypeObject* _tensor_type = <PyTypeObject*> torch.Tensor
cdef object _is_neg = torch.Tensor.is_neg


def copy_plain(list targets not None, list sources not None):
    """Copy each source to the target in its place, if all are plain, contiguous tensors of one GPU.

    Parameters
    ----------
    targets, sources : list of torch.Tensor
        As many, and in pairs of one dtype and size.

    Returns
    -------
    bool
        False if there are more than four, or something is not as it should be: then nothing was copied.

    Raises
    ------
    ExecutionError
        If CUDA refuses.

    Notes
    -----
    PyTorch does not learn that a target was written: its version counter stays.
    """
    cdef DLExchangeAPI* api = torch_exchange_api()
    cdef DLTensor from_[MOST_COPIES]
    cdef DLTensor to[MOST_COPIES]
    cdef Py_ssize_t count = len(targets)
    cdef Py_ssize_t index
    cdef cydriver.CUstream stream
    if count > MOST_COPIES or len(sources) != count:
        return False
    for index in range(count):
        if (
            not _read_on_gpu(api, <PyObject*> sources[index], &from_[index])
            or not _read_on_gpu(api, <PyObject*> targets[index], &to[index])
            or pack_dtype(from_[index].dtype) != pack_dtype(to[index].dtype)
            or element_count(&from_[index]) != element_count(&to[index])
            or from_[index].device.device_id != from_[0].device.device_id
            or to[index].device.device_id != from_[0].device.device_id
            or _is_neg(sources[index])
        ):
            return False
    if count == 0:
        return True
    need_context()
    stream = <cydriver.CUstream> current_stream(api, from_[0].device.device_id)
    for index in range(count):
        if element_count(&from_[index]) != 0:
            check(
                cydriver.cuMemcpyAsync(
                    <cydriver.CUdeviceptr> to[index].data,
                    <cydriver.CUdeviceptr> from_[index].data,
                    element_count(&from_[index]) * (from_[index].dtype.bits >> 3),
                    stream,
                ),
                b"cuMemcpyAsync",
            )
    return True


cdef bint _read_on_gpu(DLExchangeAPI* api, PyObject* value, DLTensor* tensor) noexcept:
    return (
        read_plain_tensor(api, _tensor_type, value, tensor)
        and tensor.device.device_type == DL_CUDA
        and tensor.dtype.code != DL_COMPLEX
        and tensor.dtype.bits % 8 == 0
        and tensor.dtype.lanes == 1
        and is_contiguous(tensor)
    )
