"""Methods whose exceptions nobody raises: those that TensorRT calls from C++, and finalizers.

TensorRT's bindings print what such a method raises, and CPython what a finalizer raises. Both continue, so
that Ctrl-C would be lost. It can come at the first bytecode of a method that is written in Python, before any
``try`` in it. So its exceptions are caught in C, where no signal handler runs.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF

from functools import partial
import threading
import types

from trt_rt._core.critical import complete

cdef extern from "Python.h":
    ctypedef int (*PendingCall)(void*) except -1
    int Py_AddPendingCall(PendingCall function, void* argument) noexcept
    int PyThreadState_SetAsyncExc(unsigned long thread, object kind) noexcept


cdef class Callback:
    """A method that never raises.

    Parameters
    ----------
    function : callable
        The method.
    refusal : object
        Returned in place of a result after an exception.
    keeps_error : bool
        Whether the exception becomes the attribute ``error`` of the instance, whose owner raises it. If not,
        the thread raises it as soon as it runs Python code again.
    """

    cdef readonly object func  # as a functools.partial has it
    cdef object _refusal
    cdef bint _keeps_error

    def __init__(self, function, refusal, bint keeps_error):
        self.func = function
        self._refusal = refusal
        self._keeps_error = keeps_error

    def __call__(self, instance, /, *args):
        try:
            return self.func(instance, *args)
        except BaseException as error:
            if self._keeps_error:
                instance.error = error
            else:
                _raise_later(error)
        return self._refusal

    def __get__(self, instance, owner):
        # A bound method of Python's: pybind11 takes a C function for one that no subclass overrides.
        return self if instance is None else types.MethodType(self, instance)


def callback(*, refusal=None, bint keeps_error=False):
    """Return a decorator that makes a method a `Callback`, with these arguments."""
    return lambda function: Callback(function, refusal, keeps_error)


def finalizer(function):
    """Return a ``__del__`` that no interrupt cuts short, made of an idempotent function."""
    return Callback(partial(complete, function), None, False)


cdef class HandBack:
    """Appends a value to a list when it is freed itself, in C, where no interrupt can cut it short.

    Parameters
    ----------
    values : list
        The list.
    value : object
        The value.
    """

    cdef list _values
    cdef object _value

    def __init__(self, list values not None, value):
        self._values = values
        self._value = value

    def __del__(self):
        if self._values is not None:
            self._values.append(self._value)


cdef int _raise_now(void* argument) except -1:
    """A pending call, which Python runs with the GIL."""
    error = <object> argument
    Py_DECREF(error)
    raise error


cdef int _raise_later(error) except -1:
    """Raise an exception on this thread as soon as it runs Python code again."""
    cdef bint is_on_main_thread
    try:
        is_on_main_thread = threading.current_thread() is threading.main_thread()
    except BaseException as interrupt:  # only the main thread handles signals
        error = interrupt
        is_on_main_thread = True
    Py_INCREF(error)
    if is_on_main_thread and Py_AddPendingCall(_raise_now, <void*> error) == 0:
        return 0
    Py_DECREF(error)
    PyThreadState_SetAsyncExc(threading.get_ident(), type(error))
    return 0
