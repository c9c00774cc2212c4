"""Allocates a result, with no more Python objects than the result itself."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from trt_rt._core.dlpack cimport DLExchangeAPI, DLTensor
from trt_rt._core.python_objects cimport items, try_vectorcall


cdef inline PyObject* new_tensor(
    PyObject* allocate, PyObject* arguments, const DLExchangeAPI* api, DLTensor* tensor
) noexcept:
    """Return a new tensor, and put its description into `tensor`.

    Parameters
    ----------
    allocate
        From `empty_function`.
    arguments
        The tuple of its arguments.

    Returns
    -------
    PyObject*
        A reference that the caller owns. NULL, with an exception set, if there is no memory.
    """
    cdef PyObject* value = try_vectorcall(allocate, items(<tuple> arguments), 3, NULL)
    if value != NULL and api.dltensor_from_py_object_no_sync(value, tensor) != 0:
        Py_DECREF(<object> value)
        return NULL
    return value
