# cython: language_level=3, freethreading_compatible=True, embedsignature=True, annotation_typing=False
"""Times single calls: until a call returns, and until the GPU has done what it was given.

The loop is in C, so that no bytecode of a caller is measured. A call goes through ``PyObject_Vectorcall``, as
the interpreter's own CALL instruction does for a callable that it has not specialised.
"""

from cpython.array cimport array
from cpython.object cimport PyObject
from cuda.bindings cimport cydriver
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free


cdef extern from *:
    """
    #include <time.h>

    static inline int64_t timed_calls_now(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    static inline PyObject *timed_calls_call(
        PyObject *function, PyObject **arguments, Py_ssize_t positional, PyObject *names)
    {
        return PyObject_Vectorcall(
            function, arguments, (size_t)positional | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
    }
    """
    int64_t timed_calls_now() nogil
    object timed_calls_call(object function, PyObject **arguments, Py_ssize_t positional, PyObject *names)


def time_calls(call, Py_ssize_t calls, tuple arguments=(), dict keywords=None, stream=None):
    """Make `calls` calls, each after the GPU has finished the one before.

    Parameters
    ----------
    call : callable
        Its result is kept until the next one is there, as ``y = f(x)`` in a loop does.
    calls : int
        How many.
    arguments : tuple, optional
        Positional arguments of every call.
    keywords : dict, optional
        Keyword arguments of every call.
    stream : int, optional
        The CUDA stream that the call's work ends on. Default: the call waits for its work itself.

    Returns
    -------
    tuple of array
        Nanoseconds until each call returned, and until its work was done, both counted from its start.

    Raises
    ------
    RuntimeError
        The stream cannot be waited for: a call left an error on the GPU.
    """
    cdef tuple values = arguments + (tuple(keywords.values()) if keywords else ())
    cdef tuple names = tuple(keywords) if keywords else None
    cdef PyObject *names_pointer = NULL
    cdef Py_ssize_t positional = len(arguments)
    cdef array returned = array("q", [0]) * calls
    cdef array done = array("q", [0]) * calls
    cdef cydriver.CUstream handle = <cydriver.CUstream> <size_t> (stream or 0)
    cdef bint waits = stream is not None
    cdef int64_t start
    cdef Py_ssize_t index
    cdef object _held = None
    cdef cydriver.CUresult result
    # The slot before the first argument belongs to the callee (PY_VECTORCALL_ARGUMENTS_OFFSET).
    cdef PyObject **stack = <PyObject **>calloc(len(values) + 1, sizeof(PyObject *))
    if names is not None:
        names_pointer = <PyObject *>names
    if stack == NULL:
        raise MemoryError()
    try:
        for index in range(len(values)):
            stack[index + 1] = <PyObject *>values[index]
        for index in range(calls):
            start = timed_calls_now()
            _held = timed_calls_call(call, stack + 1, positional, names_pointer)
            returned.data.as_longlongs[index] = timed_calls_now() - start
            if waits:
                with nogil:
                    result = cydriver.cuStreamSynchronize(handle)
                if result != cydriver.CUDA_SUCCESS:
                    raise RuntimeError("cuStreamSynchronize failed: the timed call left an error on the GPU")
            done.data.as_longlongs[index] = timed_calls_now() - start
    finally:
        free(stack)
    return returned, done


def clock_cost(Py_ssize_t readings=1000):
    """Return the nanoseconds that reading the clock adds to a measured time: the least of `readings`."""
    cdef int64_t least = 1 << 60
    cdef int64_t start
    cdef Py_ssize_t _
    for _ in range(readings):
        start = timed_calls_now()
        least = min(least, timed_calls_now() - start)
    return least
