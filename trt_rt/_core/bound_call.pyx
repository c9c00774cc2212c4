# cython: boundscheck=False, wraparound=False
"""Calls with everything bound, which only enqueue; and how they are made and run."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uintptr_t

from trt_rt._core.bound_context cimport acquire, end_call
from trt_rt._core.driver cimport is_capturing
from trt_rt._core.graph_binding cimport GraphBinding
from trt_rt._core.vectorcall cimport PyVectorcall_NARGS, has_keywords, use_vectorcall

from weakref import WeakSet

import torch

from trt_rt._core.arguments import describe
from trt_rt._core.dlpack import view_of
from trt_rt.errors import ClosedError, InputValueError

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]


cdef inline PyObject** _items(tuple items) noexcept:
    return (<PyTupleObject*> items).ob_item


@cython.no_gc_clear  # its graph waits for work, through members that would be gone
cdef class BoundCall:
    """An engine's call with everything bound: calling it only enqueues.

    Made by `Executor.bind`. Every call reads the same input tensors and writes the same output tensors, on
    the caller's current stream, and returns the outputs. Shape tensors keep the values that they had.

    Attributes
    ----------
    inputs : tuple of torch.Tensor
        Write new data into these before a call. They must keep their memory: no ``resize_``, no ``set_``.
    outputs : torch.Tensor or tuple of torch.Tensor or None
        Overwritten by every call; None if TensorRT allocates an output, which is then new every time.
    """

    def __cinit__(self, BoundCalls executor not None, tuple inputs):
        cdef Py_ssize_t count = executor.input_count + executor.output_count
        self.vectorcall = _run_bound_call
        self.executor = executor
        self.inputs = inputs
        self.addresses = <uintptr_t*> PyMem_Calloc(max(count, 1), sizeof(uintptr_t))
        if self.addresses == NULL:
            raise MemoryError()

    def __init__(self, *args, **kwargs):
        raise TypeError("bound calls are made by TRTModule.bind")

    def __dealloc__(self):
        PyMem_Free(self.addresses)
        if self.graph is not None and self.executor is not None:
            self.executor.wait_quietly()  # its context must not go while it runs

    def __call__(self):
        """Enqueue the engine.

        Returns
        -------
        torch.Tensor or tuple of torch.Tensor
            `outputs`; valid in stream order, until the next call.

        Raises
        ------
        ExecutionError
            If TensorRT refuses.
        ClosedError
            If the engine was closed.
        """
        return self.executor.run_bound(self)


@cython.no_gc_clear
cdef class BoundCalls(GraphBinding):
    """What an executor needs besides to make calls that are bound once, and to run them."""

    def __cinit__(self, contexts, tuple inputs, tuple outputs, **options):
        self.accepted = self.input_count
        self.live_calls = WeakSet()

    def bind(self, *args, out=None):
        """Bind everything once; see `TRTModule.bind`.

        Returns
        -------
        BoundCall

        Raises
        ------
        InputError, ExecutionError, ClosedError
            As `TRTModule.bind`.
        """
        cdef Py_ssize_t index
        cdef BoundCall call = BoundCall.__new__(BoundCall, self, args)
        cdef bint succeeded = False
        acquire(self)
        try:
            if len(args) != self.accepted:
                self._refuse_count(len(args))
            self.bound = 0
            if self.on_cuda:
                self.use_stream(self.callers_stream())
            self.take_inputs(_items(args), len(args))
            self._refuse_copies(args)
            self.buffers = None
            if out is not None:
                result = self.bind_callers(_items(args), out)
            else:
                result = self.bind_fresh(_items(args))
            call.owners = result
            call.results = self._kept(result, out is None)
            if not self.record.is_data_dependent:
                call.outputs = call.results[0] if self.output_count == 1 else call.results
            call.record = self.record
            for index in range(self.input_count + self.output_count):
                call.addresses[index] = self.slots[index].next_address
            self.bound_calls += 1
            call.identity = self.bound_calls
            call.stream = self.stream
            if self.defers_binding:
                self.forget()
            else:
                self.bound = call.identity
            self.live_calls.add(call)
            succeeded = True
        finally:
            end_call(self, succeeded)
        return call

    def _kept(self, result, bint is_fresh):
        """The outputs of a BoundCall; nobody can free the memory of those that are its own."""
        values = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        if not is_fresh:
            return values
        return tuple([
            value if value is None or self.aliased[index] >= 0 else view_of(value)
            for index, value in enumerate(values)
        ])

    def _refuse_copies(self, tuple args):
        cdef Py_ssize_t index
        for index in range(self.input_count):
            tensor = self.inputs[index]
            if self.slots[index].last_object == NULL and not tensor.is_shape_tensor:
                raise InputValueError(
                    f"input {tensor} cannot be bound: {describe(args[index])} would have to be copied, and "
                    "the copy would not see what is written into the tensor later. Bind a contiguous "
                    f"torch.Tensor that starts at a multiple of {self.alignment} bytes."
                )

    cdef object run_bound(self, BoundCall call):
        cdef bint succeeded = False
        acquire(self)
        try:
            if self.accepted < 0:
                self._refuse_count(0)
            self.calls += 1
            if self.on_cuda:
                self.use_stream(self.callers_stream())
                if self.stream != call.stream and not self.is_borrowing:
                    self._use_on_this_stream(call)
            if self.max_graphs != 0 and call.outputs is not None:
                self._run_bound_graph(call)
                succeeded = True
                return call.outputs
            if call.identity != self.bound:
                self._restore(call)
            if call.outputs is None:
                result = self.collect(call.results)
            else:
                result = call.outputs
                self.enqueue()
            succeeded = True
            return result
        finally:
            end_call(self, succeeded)

    cdef int _run_bound_graph(self, BoundCall call) except -1:
        if self.on_cuda and is_capturing(self.stream):
            self.forget()  # with binding deferred the context was told nothing
            self._restore(call)
            self.enqueue()
            self.forget()
        elif call.graph is not None:
            self.launch_graph(call.graph)
        else:
            self.recall(call.record)
            call.graph = self.capture_graph(call.record, call.addresses)
            self.forget()
        return 0

    cdef int _use_on_this_stream(self, BoundCall call) except -1:
        """Keep the call's own memory from being reused before its work on this stream is done."""
        for owner in call.owners if isinstance(call.owners, (tuple, list)) else (call.owners,):
            if isinstance(owner, torch.Tensor) and owner.is_cuda:
                owner.record_stream(torch.cuda.current_stream(self.device))
        call.stream = self.stream
        return 0

    cdef int _restore(self, BoundCall call) except -1:
        """Bind a BoundCall's addresses again, after other calls of this executor."""
        cdef Py_ssize_t index
        self.bound = 0
        self.buffers = None
        self.graph = None
        if self.record is not call.record or any([tensor.is_shape_tensor for tensor in self.inputs]):
            self.use_record(call.record)
        for index in range(self.input_count + self.output_count):
            self.slots[index].last_object = NULL
            if not (index < self.input_count and self.slots[index].is_shape_tensor):
                self.slots[index].next_address = call.addresses[index]
            if self.slots[index].next_address not in (0, self.slots[index].address):
                self.tell_address(index)
        self.bound = call.identity
        self.record = None  # an ordinary call looks its own up: modes may have changed since this one's
        return 0

    cdef void forget(self) noexcept:
        self.bound = 0
        GraphBinding.forget(self)

    cdef int drop_graphs(self) except -1:
        cdef BoundCall call
        GraphBinding.drop_graphs(self)
        for call in self.live_calls:
            call.graph = None
        return 0

    cdef bint has_graphs(self) except -1:
        cdef BoundCall call
        if GraphBinding.has_graphs(self):
            return True
        for call in self.live_calls:
            if call.graph is not None:
                return True
        return False

    cdef int change_stream(self, uintptr_t stream) except -1:
        GraphBinding.change_stream(self, stream)
        if self.shares_workspace and not self.is_borrowing:
            self.record = None  # the scratch memory of the old stream stays with it
            self.bound = 0
        return 0

    def _refuse_count(self, Py_ssize_t count):
        if self.accepted < 0:
            raise ClosedError(f"engine {self.name!r} was closed; load it again to run it.")
        expected = ", ".join(str(tensor) for tensor in self.inputs) or "none"
        raise InputValueError(
            f"engine {self.name!r} takes {self.input_count} input(s), got {count}. Its inputs: {expected}."
        )


cdef object _run_bound_call(object this, PyObject** args, size_t flags, PyObject* names):
    cdef BoundCall call = <BoundCall> this
    if PyVectorcall_NARGS(flags) != 0 or has_keywords(names):
        raise TypeError("a bound call takes no arguments: its inputs are bound; write into them.")
    return call.executor.run_bound(call)


use_vectorcall(<PyTypeObject*> BoundCall, <Py_ssize_t> &(<BoundCall> <PyObject*> NULL).vectorcall)
