"""Calls of extension types without an argument tuple (PEP 590).

Cython gives an extension type only ``tp_call``, which takes a tuple. To get vectorcall, a type declares a
member of type `vectorcallfunc`, which ``__cinit__`` sets, and its module calls `use_vectorcall` with the
member's offset. ``tp_call`` stays for callers that have a tuple. Both must do the same.
"""

from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_SIZE

# PyObject_Vectorcall's arguments: the callable, values, count and flags, names of the last values or NULL.
ctypedef object (*vectorcallfunc)(object, PyObject**, size_t, PyObject*)

cdef extern from "Python.h":
    """
    static inline void trt_rt_use_vectorcall(PyTypeObject *type, Py_ssize_t offset) {
        type->tp_vectorcall_offset = offset;
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
        PyType_Modified(type);
    }
    static inline void trt_rt_inherit_vectorcall(PyTypeObject *type) {
    #if PY_VERSION_HEX < 0x030C0000  /* later ones have inherited it */
        if (!PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL))
            trt_rt_use_vectorcall(type, type->tp_vectorcall_offset);
    #endif
    }
    static inline void trt_rt_call_as(PyTypeObject *type, PyTypeObject *base) {
        if (type->tp_call == base->tp_call)
            return;
        type->tp_call = base->tp_call;
        trt_rt_use_vectorcall(type, base->tp_vectorcall_offset);
    }
    """
    void use_vectorcall "trt_rt_use_vectorcall" (PyTypeObject* type, Py_ssize_t offset) noexcept
    void inherit_vectorcall "trt_rt_inherit_vectorcall" (PyTypeObject* type) noexcept  # to a Python class
    # Let a Python class be called as its base is, though its dict has a __call__.
    void call_as "trt_rt_call_as" (PyTypeObject* type, PyTypeObject* base) noexcept
    Py_ssize_t PyVectorcall_NARGS(size_t) noexcept


cdef inline bint has_keywords(PyObject* names) noexcept:
    return names != NULL and PyTuple_GET_SIZE(<object> names) != 0


cdef inline tuple positional(PyObject** args, Py_ssize_t count):
    """Return the positional arguments as a tuple."""
    return tuple([<object> args[index] for index in range(count)])


cdef inline dict keywords(PyObject** args, Py_ssize_t count, PyObject* names):
    """Return the keyword arguments, which follow the `count` positional ones, as a dict."""
    if names == NULL:
        return {}
    return {name: <object> args[count + index] for index, name in enumerate(<tuple> names)}
