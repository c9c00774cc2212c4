"""A module's call that is the call of a function, which its code generator wrote."""

from cpython.object cimport PyObject, PyTypeObject

from trt_rt._core.python_objects cimport vectorcall as call_object
from trt_rt._core.vectorcall cimport (
    PyVectorcall_NARGS,
    inherit_vectorcall,
    keywords,
    positional,
    use_vectorcall,
    vectorcallfunc,
)

from cpython.ref cimport Py_DECREF


cdef class FunctionCallBase:
    """The first base class of a module, before nn.Module: a call goes to the function of `_call_function`."""

    cdef vectorcallfunc _vectorcall
    cdef object _function

    def __cinit__(self, *args, **kwargs):
        self._vectorcall = _call_generated
        if (<PyObject*> self).ob_type.tp_call == (<PyTypeObject*> FunctionCallBase).tp_call:
            inherit_vectorcall((<PyObject*> self).ob_type)

    def __call__(self, *args, **kwargs):
        return self._function(*args, **kwargs)

    def _call_function(self, function not None):
        """Set the function that calls go to. It looks for hooks itself."""
        self._function = function


cdef object _call_generated(object this, PyObject** args, size_t flags, PyObject* names):
    cdef Py_ssize_t count
    cdef PyObject* result
    # Before Python 3.12, giving a class another __call__ does not switch this one off.
    if (<PyObject*> this).ob_type.tp_call != (<PyTypeObject*> FunctionCallBase).tp_call:
        count = PyVectorcall_NARGS(flags)
        return type(this).__call__(this, *positional(args, count), **keywords(args, count, names))
    result = call_object(<PyObject*> (<FunctionCallBase> this)._function, args, flags, names)
    value = <object> result
    Py_DECREF(value)
    return value


use_vectorcall(
    <PyTypeObject*> FunctionCallBase, <Py_ssize_t> &(<FunctionCallBase> <PyObject*> NULL)._vectorcall
)
