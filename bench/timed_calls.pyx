# cython: language_level=3, freethreading_compatible=True, embedsignature=True, annotation_typing=False
"""Times single calls: until a call returns, and until the GPU has done what it was given."""

from cpython.array cimport array
from cuda.bindings cimport cydriver
from libc.stdint cimport int64_t


cdef extern from "<time.h>" nogil:
    """
    static inline int64_t bench_nanoseconds(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    int64_t bench_nanoseconds()


def time_calls(call, Py_ssize_t calls, stream=None):
    """Make `calls` calls, each after the GPU has finished the one before.

    Parameters
    ----------
    call : callable
        Takes no arguments. Its result is kept until the next one is there, as ``y = f(x)`` in a loop does.
    calls : int
        How many.
    stream : int, optional
        The CUDA stream that the call's work ends on. Default: the call waits for its work itself.

    Returns
    -------
    tuple of array
        Nanoseconds until each call returned, and until its work was done, both counted from its start.
    """
    cdef array returned = array("q", [0]) * calls
    cdef array done = array("q", [0]) * calls
    cdef cydriver.CUstream handle = <cydriver.CUstream> <size_t> (stream or 0)
    cdef bint waits = stream is not None
    cdef int64_t start
    cdef Py_ssize_t index
    cdef object _held = None
    for index in range(calls):
        start = bench_nanoseconds()
        _held = call()
        returned.data.as_longlongs[index] = bench_nanoseconds() - start
        if waits and cydriver.cuStreamSynchronize(handle) != cydriver.CUDA_SUCCESS:
            raise RuntimeError("cuStreamSynchronize failed: the timed call left an error on the GPU")
        done.data.as_longlongs[index] = bench_nanoseconds() - start
    return returned, done
