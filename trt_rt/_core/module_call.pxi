"""A TRTModule's call, which goes directly to the executor of the caller's stream.

Hooks, a replaced ``forward`` and the like lead to nn.Module's own call instead. So does tracing: nn.Module's
call is what tracers of PyTorch know, and ``forward`` then puts an operator into their graph.
"""

from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uintptr_t

from trt_rt._core.python_objects cimport any_items, items
from trt_rt._core.vectorcall cimport (
    PyVectorcall_NARGS,
    call_as,
    has_keywords,
    inherit_vectorcall,
    keywords,
    positional,
    use_vectorcall,
    vectorcallfunc,
)


import sysconfig

from trt_rt._core.arguments import is_symbolic

cdef bint IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


cdef class ModuleCallBase:
    """The first base class of TRTModule, whose ``__call__`` replaces that of nn.Module.

    nn.Module's call costs more than the whole rest of a call, mostly because it looks for hooks. The dicts
    that hold hooks are known in advance, so reading their sizes is enough.
    """

    cdef vectorcallfunc _vectorcall
    cdef ExecutorPool _pool
    cdef bint _is_direct         # whether nn.Module's own call would only call forward
    cdef list _retired           # earlier tuples of hooks, for calls that still read them; only without a GIL
    cdef tuple _hooks            # dicts that hold hooks, the module's own and those of all modules

    def __cinit__(self, *args, **kwargs):
        self._vectorcall = _call_module
        self._retired = []
        if _python_call is not None and getattr(type(self), "__call__", None) is _python_call:
            call_as((<PyObject*> self).ob_type, <PyTypeObject*> ModuleCallBase)
        if (<PyObject*> self).ob_type.tp_call == (<PyTypeObject*> ModuleCallBase).tp_call:
            inherit_vectorcall((<PyObject*> self).ob_type)

    def __call__(self, *args, **kwargs):
        if self._is_direct and not self._has_hooks() and not (may_be_traced() and is_traced_by_torchscript()):
            if not kwargs:
                return self._run(items(args), PyTuple_GET_SIZE(args), None)
            if list(kwargs) == ["out"]:
                return self._run(items(args), PyTuple_GET_SIZE(args), kwargs["out"])
        if "self" in kwargs:  # nn.Module's own call would take this input for itself
            out = {"out": kwargs.pop("out")} if "out" in kwargs else {}
            return super().__call__(*self._arrange(args, kwargs), **out)
        return super().__call__(*args, **kwargs)

    cdef object _run(self, PyObject** args, Py_ssize_t count, object out):
        cdef uintptr_t route
        cdef bint ended = False
        try:
            route = self._pool.callers_route()
            result = self._pool.select(route).run(route, args, count, out)
            ended = True
            return result
        finally:
            # A flag, because `except` costs every call; see `Executor.end_call`.
            if not ended and any([is_symbolic(<object> args[index]) for index in range(count)]):
                return self._call_in_python(*positional(args, count), out=out)

    def _call_in_python(self, *args, out=None):
        return super().__call__(*args) if out is None else super().__call__(*args, out=out)

    cdef inline bint _has_hooks(self) noexcept:
        return any_items(<PyObject*> self._hooks)

    def _connect(self, ExecutorPool pool, bint is_direct, tuple hooks not None):
        """Set the pool and the dicts of hooks. With `is_direct` False, nn.Module makes every call."""
        if not all([isinstance(hook, dict) for hook in hooks]):
            raise TypeError("hooks must be dicts")
        if self._hooks is not None and all([new is old for new, old in zip(hooks, self._hooks)]):
            hooks = self._hooks
        elif self._hooks is not None and IS_FREE_THREADED:
            self._retired.append(self._hooks)  # a call on another thread may be reading them
        self._pool = pool
        self._is_direct = is_direct and pool is not None
        self._hooks = hooks

    @property
    def executor(self):
        """The `Executor` of the caller's stream, which makes the call without nn.Module."""
        return None if self._pool is None else self._pool.select(self._pool.callers_route())


cdef object _call_module(object this, PyObject** args, size_t flags, PyObject* names):
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags)
    # Before Python 3.12, giving a class another __call__ does not switch this one off.
    if (
        (<ModuleCallBase> this)._is_direct
        and (<PyObject*> this).ob_type.tp_call == (<PyTypeObject*> ModuleCallBase).tp_call
        and not (<ModuleCallBase> this)._has_hooks()
        and not (may_be_traced() and is_traced_by_torchscript())
    ):
        if not has_keywords(names):
            return (<ModuleCallBase> this)._run(args, count, None)
        if len(<tuple> names) == 1 and (<tuple> names)[0] == "out":
            return (<ModuleCallBase> this)._run(args, count, <object> args[count])
    return type(this).__call__(this, *positional(args, count), **keywords(args, count, names))


cdef object _python_call = None  # TRTModule's, in the class's dict for Dynamo to read


def show_call(kind not None):
    """Keep the calls of a class with a ``__call__`` in Python direct: those of its first base class, in C.

    Dynamo reads how a module is called from the ``__call__`` of its class, and can trace only Python. The
    function is for Dynamo. Subclasses of `TRTModule` without a ``__call__`` of their own are called as it is.
    """
    global _python_call
    base = kind.__bases__[0]
    if base is ModuleCallBase:
        _python_call = kind.__call__
    call_as(<PyTypeObject*> kind, <PyTypeObject*> base)


use_vectorcall(<PyTypeObject*> ModuleCallBase, <Py_ssize_t> &(<ModuleCallBase> <PyObject*> NULL)._vectorcall)
