# cython: language_level=3, freethreading_compatible=True, embedsignature=True, annotation_typing=False
"""A call with its arguments at hand, made from C so that no bytecode of the caller is measured.

One call goes through ``PyObject_Vectorcall``, as the interpreter's own CALL instruction does for a
callable that it has not specialised. So an argument tuple that the callee needs (``tp_call``) counts,
and the loop that measures does not.
"""

from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free


cdef extern from *:
    """
    typedef struct {
        PyObject *function;    /* borrowed; NULL makes an empty loop: the cost of the loop itself */
        PyObject **stack;      /* argument lists of `width` borrowed references, a spare slot before each */
        Py_ssize_t lists;
        Py_ssize_t width;
        Py_ssize_t positional;
        PyObject *kwnames;     /* borrowed tuple, or NULL */
        Py_ssize_t next_list;
    } bench_call;

    static inline PyObject *bench_call_once(bench_call *call)
    {
        PyObject **arguments = call->stack + call->next_list * (call->width + 1) + 1;
        if (++call->next_list == call->lists) call->next_list = 0;
        return PyObject_Vectorcall(
            call->function, arguments,
            (size_t)call->positional | PY_VECTORCALL_ARGUMENTS_OFFSET, call->kwnames);
    }

    /* Callgrind switches collection on where this function is entered and off where it is left, by its
       name: it must stay a function of its own. The last result is held until the next one is there, as
       `y = f(x)` in a loop does, so a fresh output never gets the address of the one just before it. */
    __attribute__((noinline, used, visibility("default")))
    int bench_repeat_calls(bench_call *call, Py_ssize_t repeats)
    {
        PyObject *last = NULL;
        Py_ssize_t i;
        for (i = 0; i < repeats; i++) {
            PyObject *result = NULL;
            if (call->function != NULL) {
                result = bench_call_once(call);
                if (result == NULL) { Py_XDECREF(last); return -1; }
            }
            Py_XDECREF(last);
            last = result;
        }
        Py_XDECREF(last);
        return 0;
    }
    """
    ctypedef struct bench_call:
        PyObject *function
        PyObject **stack
        Py_ssize_t lists
        Py_ssize_t width
        Py_ssize_t positional
        PyObject *kwnames
        Py_ssize_t next_list

    object bench_call_once(bench_call *call)
    int bench_repeat_calls(bench_call *call, Py_ssize_t repeats) except -1


cdef class PreparedCall:
    """A callable and the arguments that its calls take in turn.

    Parameters
    ----------
    function : callable or None
        What is called; None makes :meth:`repeat` an empty loop, the baseline to subtract.
    *argument_lists : tuple
        Positional arguments of the first call, of the second, ...; after the last the first comes again.
        All of one length. Default: one empty tuple.
    keywords : dict, optional
        Keyword arguments, the same for every call.
    """

    cdef bench_call _call
    cdef object _held                   # owns everything that _call borrows
    cdef readonly object function

    def __cinit__(self, function, *argument_lists, dict keywords=None):
        cdef Py_ssize_t row, column
        cdef tuple arguments
        lists = argument_lists or ((),)
        kwnames = tuple(keywords) if keywords else None
        values = tuple(keywords.values()) if keywords else ()
        positional = len(lists[0])
        if any(len(arguments) != positional for arguments in lists):
            raise ValueError("the argument lists of one PreparedCall must have one length")
        rows = [tuple(arguments) + values for arguments in lists]
        self.function = function
        self._held = (function, rows, kwnames)
        self._call.function = NULL if function is None else <PyObject *>function
        self._call.lists = len(rows)
        self._call.width = positional + len(values)
        self._call.positional = positional
        self._call.kwnames = NULL if kwnames is None else <PyObject *>kwnames
        self._call.next_list = 0
        self._call.stack = <PyObject **>calloc(len(rows) * (self._call.width + 1), sizeof(PyObject *))
        if self._call.stack == NULL:
            raise MemoryError()
        for row in range(self._call.lists):
            arguments = rows[row]
            for column in range(self._call.width):
                self._call.stack[row * (self._call.width + 1) + 1 + column] = <PyObject *>arguments[column]

    def __dealloc__(self):
        free(self._call.stack)

    def __call__(self):
        """Make one call, with the next arguments in turn, and return its result."""
        if self._call.function == NULL:
            return None
        return bench_call_once(&self._call)

    def repeat(self, Py_ssize_t repeats):
        """Make `repeats` calls in a C loop; each result is held until the next one is there."""
        bench_repeat_calls(&self._call, repeats)
