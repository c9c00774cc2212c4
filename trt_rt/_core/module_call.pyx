# cython: boundscheck=False, wraparound=False
"""A TRTModule's call: straight to its stream's executor, unless something asks for nn.Module's own."""

from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_SIZE

from trt_rt._core.executor_pool cimport ExecutorPool

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]

    Py_ssize_t PyDict_GET_SIZE(object)


cdef class ModuleCallBase:
    """First base of TRTModule, before nn.Module, whose ``__call__`` it takes the place of.

    nn.Module's call costs more than all the rest of a call here, mostly in looking for hooks. The dicts
    that hold hooks are known in advance, so that looking is reading a few sizes.
    """

    def __call__(self, *args, **kwargs):
        if self._is_direct and not self._has_hooks():
            if not kwargs:
                return self._pool.select().run((<PyTupleObject*> args).ob_item, PyTuple_GET_SIZE(args), None)
            return self.forward(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    cdef bint _has_hooks(self) noexcept:
        cdef Py_ssize_t index
        for index in range(PyTuple_GET_SIZE(self._hooks)):
            if PyDict_GET_SIZE(<object> (<PyTupleObject*> self._hooks).ob_item[index]) != 0:
                return True
        return False

    def _connect(self, ExecutorPool pool, bint is_direct, tuple hooks not None):
        """Set what a call uses. `hooks` are dicts; `is_direct` False leaves every call to nn.Module."""
        if not all([isinstance(hook, dict) for hook in hooks]):
            raise TypeError("hooks must be dicts")
        self._pool = pool
        self._is_direct = is_direct and pool is not None
        self._hooks = hooks

    @property
    def executor(self):
        """The `Executor` of the calling stream: the call without nn.Module around it."""
        return None if self._pool is None else self._pool.select()
