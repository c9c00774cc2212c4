"""The call of a program that is run as one CUDA graph: served by a graph, or left to Python."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.critical cimport Gate, enter, leave
from trt_rt._core.python_objects cimport any_items, items, list_item, list_size, vectorcall
from trt_rt._core.vectorcall cimport (
    PyVectorcall_NARGS,
    has_keywords,
    inherit_vectorcall,
    keywords,
    positional,
    use_vectorcall,
    vectorcallfunc,
)

import torch

cdef extern from "Python.h":
    PyObject* Py_False

cdef object _is_autocast_on = torch._C._is_any_autocast_enabled


@cython.final
cdef class ProgramReplays:
    """The graphs of a program, and the steady path of its calls.

    A call is served here if its arguments are plain tensors of the kinds of a graph, and nothing has changed
    that graphs have baked in. Everything else is left to Python.

    Parameters
    ----------
    gate : Gate
        Lets one call in at a time: calls share static tensors.
    sequence : StreamSequence
        Orders the work of calls from several streams.
    state : ProgramState
        What the graphs have baked in.

    Attributes
    ----------
    graphs : list of ProgramGraph
        Those that serve plain calls.
    calls : int
        Calls of the program so far, in whichever way they were served.
    replays : int
        Calls that a graph has served.
    """

    cdef Gate gate
    cdef StreamSequence sequence
    cdef ProgramState state
    cdef list _graphs
    cdef ProgramGraph last       # which served the last call here
    cdef public uint64_t calls
    cdef public uint64_t replays

    def __cinit__(
        self, Gate gate not None, StreamSequence sequence not None, ProgramState state not None
    ):
        self.gate = gate
        self.sequence = sequence
        self.state = state
        self._graphs = []

    @property
    def graphs(self):
        return list(self._graphs)

    @graphs.setter
    def graphs(self, list graphs not None):
        self.last = None
        self._graphs = graphs

    cdef object run(self, PyObject** args, Py_ssize_t count):
        """Serve a call, or return NOT_SERVED.

        The call waits for its turn. Then it is compared with the calls that a graph serves, the last graph
        first. The graph takes the addresses of the arguments and of the results, and is launched.
        """
        cdef uintptr_t stream
        cdef ProgramGraph graph
        cdef object result = NOT_SERVED
        if list_size(<PyObject*> self._graphs) == 0 or _calls_true(<PyObject*> _is_autocast_on):
            return NOT_SERVED
        stream = self.sequence.current()
        if self.sequence.on_cuda:
            need_context()
            if is_capturing(stream):
                return NOT_SERVED
        enter(<PyObject*> self.gate)
        try:
            if self.state.check():
                graph = self._find(args, count)
                if graph is not None:
                    result = self._replay(graph, args, stream)
            return result
        finally:
            leave(<PyObject*> self.gate)

    cdef inline ProgramGraph _find(self, PyObject** args, Py_ssize_t count):
        cdef Py_ssize_t index
        cdef ProgramGraph graph
        if self.last is not None and self.last.fits(args, count):
            return self.last
        for index in range(list_size(<PyObject*> self._graphs)):
            graph = <ProgramGraph> list_item(<PyObject*> self._graphs, index)
            if graph.fits(args, count):
                self.last = graph
                return graph
        return None

    cdef inline object _replay(self, ProgramGraph graph, PyObject** args, uintptr_t stream):
        enter(<PyObject*> graph.gate)
        try:
            if graph.is_dropped:
                return NOT_SERVED
            self.sequence.begin_on(stream)
            self.calls += 1
            self.replays += 1
            graph.last_used = self.calls
            result = graph.run(stream)
            self.sequence.end_on(stream)
            return result
        finally:
            leave(<PyObject*> graph.gate)


cdef class WholeGraphCallBase:
    """First base of `WholeGraph`, before nn.Module: its ``__call__`` replaces nn.Module's."""

    cdef vectorcallfunc _vectorcall
    cdef ProgramReplays _replays  # None: every call is nn.Module's own
    cdef tuple _hooks            # dicts that hold hooks, the module's own and those of all modules

    def __cinit__(self, *args, **kwargs):
        self._vectorcall = _call_program
        if (<PyObject*> self).ob_type.tp_call == (<PyTypeObject*> WholeGraphCallBase).tp_call:
            inherit_vectorcall((<PyObject*> self).ob_type)

    def __call__(self, *args, **kwargs):
        result = NOT_SERVED
        if not kwargs:
            result = self._serve(items(args), PyTuple_GET_SIZE(args))
        return super().__call__(*args, **kwargs) if result is NOT_SERVED else result

    cdef inline object _serve(self, PyObject** args, Py_ssize_t count):
        if self._replays is None or any_items(<PyObject*> self._hooks):
            return NOT_SERVED
        return self._replays.run(args, count)

    def _connect(self, ProgramReplays replays, tuple hooks not None):
        """Set what serves calls, and the dicts that are looked at for hooks."""
        if not all([isinstance(hook, dict) for hook in hooks]):
            raise TypeError("hooks must be dicts")
        self._hooks = hooks
        self._replays = replays

    def _call_in_python(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


cdef object _call_program(object this, PyObject** args, size_t flags, PyObject* names):
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags)
    cdef object result
    # Before Python 3.12, giving a class another __call__ does not switch this one off.
    if (<PyObject*> this).ob_type.tp_call != (<PyTypeObject*> WholeGraphCallBase).tp_call:
        return type(this).__call__(this, *positional(args, count), **keywords(args, count, names))
    if not has_keywords(names):
        result = (<WholeGraphCallBase> this)._serve(args, count)
        if result is not NOT_SERVED:
            return result
    return (<WholeGraphCallBase> this)._call_in_python(
        *positional(args, count), **keywords(args, count, names)
    )


use_vectorcall(
    <PyTypeObject*> WholeGraphCallBase, <Py_ssize_t> &(<WholeGraphCallBase> <PyObject*> NULL)._vectorcall
)


cdef inline bint _calls_true(PyObject* function) except -1:
    """Whether a function without arguments returns anything but False."""
    cdef PyObject* result = vectorcall(function, NULL, 0, NULL)
    Py_DECREF(<object> result)
    return result != Py_False
