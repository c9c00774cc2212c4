"""Checked calls of the CUDA driver."""

from cuda.bindings cimport cydriver


cdef int raise_failure(cydriver.CUresult result, const char* call) except -1


cdef bint is_capture_invalidated(cydriver.CUstream stream) noexcept


cdef inline int check(cydriver.CUresult result, const char* call) except -1:
    """Raise an error that names the call, unless the result is success."""
    return 0 if result == cydriver.CUDA_SUCCESS else raise_failure(result, call)
