"""C idioms of the hot path: what it reads of Python objects, and how it calls them."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]

    PyObject* Py_True
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET

    # Of pointers: Cython raises the reference count of an object that it passes on. All threads share a
    # module, its hooks and the allocation function, and the cache line of a count that they all write moves
    # from processor to processor at every call.
    Py_ssize_t list_size "PyList_GET_SIZE" (PyObject*) noexcept
    PyObject* list_item "PyList_GET_ITEM" (PyObject*, Py_ssize_t) noexcept  # borrowed
    Py_ssize_t tuple_size "PyTuple_GET_SIZE" (PyObject*) noexcept
    Py_ssize_t dict_size "PyDict_GET_SIZE" (PyObject*) noexcept
    PyObject* vectorcall "PyObject_Vectorcall" (PyObject*, PyObject* const*, size_t, PyObject*) except NULL
    # NULL with an exception set, for a caller that handles it without the cost of `except`.
    PyObject* try_vectorcall "PyObject_Vectorcall" (
        PyObject*, PyObject* const*, size_t, PyObject*
    ) noexcept

cdef extern from *:
    """
    #ifndef TRT_RT_PYTHON_OBJECTS
    #define TRT_RT_PYTHON_OBJECTS
    static inline int trt_rt_raise_pending(void) { return -1; }
    #endif
    """
    int raise_pending "trt_rt_raise_pending" () except -1  # raise the exception that C code has set


cdef inline PyObject** items(tuple values) noexcept:
    """The items of a tuple, borrowed."""
    return (<PyTupleObject*> values).ob_item


cdef inline bint returns_true(PyObject* function, PyObject** stack, size_t count) except -1:
    """Call a function with the `count` values from ``stack[1]`` on; whether it returned True."""
    cdef PyObject* result = vectorcall(function, stack + 1, count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    Py_DECREF(<object> result)
    return result == Py_True


cdef inline bint any_items(PyObject* tables) noexcept:
    """Whether any of a tuple of dicts has items."""
    cdef Py_ssize_t index
    for index in range(tuple_size(tables)):
        if dict_size(items(<tuple> tables)[index]) != 0:
            return True
    return False
