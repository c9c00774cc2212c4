"""The CUDA driver's errors, its devices, and the current stream.

This module can be imported without a driver. Then the first call raises.
"""

from cuda.bindings cimport cydriver
from libc.stdint cimport uintptr_t

from trt_rt._core.dlpack cimport current_stream, torch_exchange_api

from trt_rt._core.capture_attempts import CaptureInvalidatedError
from trt_rt.errors import ExecutionError


cdef object _describe(cydriver.CUresult result):
    cdef const char* name = NULL
    cdef const char* text = NULL
    cydriver.cuGetErrorName(result, &name)
    cydriver.cuGetErrorString(result, &text)
    if name == NULL or text == NULL:
        return f"CUDA error {<int> result}"
    return f"{(<bytes> name).decode()} ({(<bytes> text).decode()})"


cdef int raise_failure(cydriver.CUresult result, const char* call) except -1:
    error = ExecutionError
    if (
        <int> cydriver.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        <= <int> result
        <= <int> cydriver.CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
    ):
        error = CaptureInvalidatedError
    raise error(f"{(<bytes> call).decode()} failed with {_describe(result)}.")


def device_count():
    """Return the number of GPUs that the CUDA driver shows, and the reason if there are none.

    Returns
    -------
    tuple of (int, str)
        The number of devices and an empty string, or 0 and the reason as the end of a sentence. The function
        never raises: a missing driver is a reason.
    """
    cdef int count = 0
    cdef cydriver.CUresult result
    try:
        result = cydriver.cuInit(0)
    except RuntimeError:
        return 0, "no NVIDIA driver (libcuda.so) is installed"
    if result == cydriver.CUDA_ERROR_NO_DEVICE:
        return 0, "the NVIDIA driver finds no GPU"
    if result != cydriver.CUDA_SUCCESS:
        return 0, f"the NVIDIA driver does not start: {_describe(result)}"
    result = cydriver.cuDeviceGetCount(&count)
    if result != cydriver.CUDA_SUCCESS:
        return 0, f"the NVIDIA driver does not count its GPUs: {_describe(result)}"
    return count, "" if count else "the NVIDIA driver finds no GPU"


cdef bint is_capture_invalidated(cydriver.CUstream stream) noexcept:
    """Whether a stream is being captured, and CUDA has invalidated the capture."""
    cdef cydriver.CUstreamCaptureStatus status = cydriver.CU_STREAM_CAPTURE_STATUS_NONE
    cydriver.cuStreamIsCapturing(stream, &status)
    return status == cydriver.CU_STREAM_CAPTURE_STATUS_INVALIDATED


def capture_is_invalidated(stream):
    """Return whether a CUDA stream is being captured, and CUDA has invalidated the capture.

    Parameters
    ----------
    stream : int
        Its handle.

    Returns
    -------
    bool
    """
    return is_capture_invalidated(<cydriver.CUstream> <uintptr_t> stream)


def current_stream_handle(int device_index):
    """Return the calling thread's current CUDA stream of a device, without PyTorch's Stream object.

    Parameters
    ----------
    device_index : int
        CUDA ordinal.

    Returns
    -------
    int
    """
    return current_stream(torch_exchange_api(), device_index)
