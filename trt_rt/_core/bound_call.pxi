"""Calls whose tensors are bound once. Calling one only enqueues."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.vectorcall cimport PyVectorcall_NARGS, has_keywords, use_vectorcall, vectorcallfunc

import torch

from trt_rt._core.dlpack import view_of
from trt_rt._core.live_objects import LiveObjects
from trt_rt._core.refused_tensors import describe
from trt_rt.errors import InputValueError

cdef class Executor


@cython.final
@cython.no_gc_clear  # its graph waits for work, through members that would be gone
cdef class BoundCall:
    """An engine's call with everything bound: calling it only enqueues.

    Made by `TRTModule.bind`. Every call reads the same input tensors and writes the same output tensors, on
    the caller's current stream, and returns the outputs. Shape tensors keep the values that they had.

    Attributes
    ----------
    inputs : tuple of torch.Tensor
        Write new data into these before a call. They must keep their memory, and stay plain views of it: no
        ``resize_``, no ``set_``, and nothing assigned to ``.data``. A call does not look at them again.
    outputs : torch.Tensor or tuple of torch.Tensor or None
        Overwritten by every call; None if TensorRT allocates an output, which is then new every time.
    """

    cdef object __weakref__      # an executor knows its calls without keeping them
    cdef vectorcallfunc vectorcall
    cdef Executor executor       # None, and the call unusable, if Python code made the object
    cdef uint64_t identity       # `BoundCalls.current` while the context holds these addresses
    cdef ShapeRecord record
    cdef readonly tuple inputs   # kept alive, with `results`: their addresses are what is bound
    cdef object owners           # of the memory of `results`: ``set_`` on one lets go of it
    cdef tuple results           # one per output; None where TensorRT allocates
    cdef OverwrittenTensors overwritten  # by a call
    cdef readonly object outputs  # what a call returns; None if TensorRT allocates an output
    cdef uintptr_t* addresses    # inputs, then outputs
    cdef EngineGraph graph       # of this call, or None
    cdef uintptr_t stream        # the memory of `owners` is reused in the order of this stream

    def __cinit__(self, *args, **kwargs):
        self.vectorcall = _refuse_unbound_call

    def __init__(self, *args, **kwargs):
        raise TypeError("bound calls are made by TRTModule.bind")

    def __dealloc__(self):
        PyMem_Free(self.addresses)
        if self.graph is not None and self.executor is not None:
            self.executor.stream.wait_quietly()  # the graph's context must not go while it runs

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
        if self.executor is None:
            _refuse_unbound()
        return self.vectorcall(self, NULL, 0, NULL)

    def run_unobserved(self):
        """Make the call; for observers."""
        if self.executor is None:
            _refuse_unbound()
        return self.executor.run_bound(self)

    cdef int observe(self, observer) except -1:
        """Let an observer see the calls; None: nobody any more. Idempotent."""
        self.vectorcall = _run_bound_call if observer is None else _run_observed_bound_call
        if self.graph is not None:
            self.graph.observe(observer)
        return 0


cdef BoundCall new_bound_call(Executor executor, tuple inputs):
    """A call of an executor, still without addresses and outputs."""
    cdef BoundCall call = BoundCall.__new__(BoundCall)
    call.addresses = <uintptr_t*> PyMem_Calloc(max(executor.slots.count, 1), sizeof(uintptr_t))
    if call.addresses == NULL:
        raise MemoryError()
    call.executor = executor
    call.inputs = inputs
    call.observe(executor.observer)
    return call


cdef object _run_bound_call(object this, PyObject** args, size_t flags, PyObject* names):
    cdef BoundCall call = <BoundCall> this
    if PyVectorcall_NARGS(flags) != 0 or has_keywords(names):
        raise TypeError("a bound call takes no arguments: its inputs are bound; write into them.")
    return call.executor.run_bound(call)


cdef object _run_observed_bound_call(object this, PyObject** args, size_t flags, PyObject* names):
    cdef BoundCall call = <BoundCall> this
    cdef object observer = call.executor.observer
    if observer is None or PyVectorcall_NARGS(flags) != 0 or has_keywords(names):
        return _run_bound_call(this, args, flags, names)
    return observer.bound_call(call.executor, call)


cdef object _refuse_unbound_call(object this, PyObject** args, size_t flags, PyObject* names):
    _refuse_unbound()


cdef int _refuse_unbound() except -1:
    raise TypeError("this bound call was not made by TRTModule.bind, so nothing is bound to it.")


use_vectorcall(<PyTypeObject*> BoundCall, <Py_ssize_t> &(<BoundCall> <PyObject*> NULL).vectorcall)


@cython.final
@cython.no_gc_clear
cdef class BoundCalls:
    """The bound calls of one executor, and which of them the context holds the addresses of.

    Parameters
    ----------
    slots : SlotTable
        The tensors of the call under way.
    execution : ExecutionContext
        Whose addresses are bound.
    inputs : InputBinding
        Finds what the shapes of a call lead to.
    outputs : OutputBinding
        Binds the outputs of a call.
    """

    cdef SlotTable slots
    cdef ExecutionContext execution
    cdef InputBinding inputs
    cdef OutputBinding outputs
    cdef uint64_t current        # identity of the call whose addresses the context holds, or 0
    cdef uint64_t made           # so far
    cdef object live             # LiveObjects of BoundCall

    def __cinit__(
        self,
        SlotTable slots not None,
        ExecutionContext execution not None,
        InputBinding inputs not None,
        OutputBinding outputs not None,
    ):
        self.slots = slots
        self.execution = execution
        self.inputs = inputs
        self.outputs = outputs
        self.live = LiveObjects()

    cdef int keep(self, BoundCall call, object result, bint is_fresh, uintptr_t stream) except -1:
        """Bind a call to the tensors that were taken for it. `result` are its outputs."""
        cdef Py_ssize_t index
        call.owners = result
        call.results = self._views(result, is_fresh)
        call.overwritten = self._overwritten_by(call)
        if not self.inputs.record.is_data_dependent:
            call.outputs = call.results[0] if len(call.results) == 1 else call.results
        call.record = self.inputs.record
        for index in range(self.slots.count):
            call.addresses[index] = self.slots.at[index].next_address
        self.made += 1
        call.identity = self.made
        call.stream = stream
        return 0

    cdef object _views(self, result, bint is_fresh):
        """The outputs of a call. Callers get views of new ones, through which nobody can free the memory."""
        values = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        if not is_fresh:
            return values
        return tuple([
            value if value is None or self.outputs.at[output].source >= 0 else view_of(value)
            for output, value in zip(self.slots.returned, values, strict=True)
        ])

    cdef OverwrittenTensors _overwritten_by(self, BoundCall call):
        """The results, and the inputs that the engine writes into, which may be among the results."""
        cdef Py_ssize_t index
        tensors = [value for value in call.results if value is not None]
        for index in range(self.slots.input_count):
            state = call.inputs[index]
            if self.slots.at[index].is_written and not any([state is tensor for tensor in tensors]):
                tensors.append(state)
        return OverwrittenTensors(tuple(tensors))

    cdef int refuse_copies(self, tuple args) except -1:
        """Refuse to bind an input that was copied when it was taken."""
        cdef Py_ssize_t index
        for index in range(self.slots.input_count):
            tensor = self.slots.inputs[index]
            if self.slots.at[index].is_copied and not tensor.is_shape_tensor:
                raise InputValueError(
                    f"input {tensor} cannot be bound: {describe(args[index])} would have to be copied, and "
                    "the copy would not see what is written into the tensor later. Bind a contiguous "
                    f"torch.Tensor that starts at a multiple of {self.slots.alignment} bytes."
                )
        return 0

    cdef inline object run(self, BoundCall call):
        """Enqueue the engine for a call, and return its outputs."""
        if call.identity != self.current:
            self._restore(call)
        if call.outputs is None:
            return self.outputs.collect(call.results)
        self.execution.enqueue()
        return call.outputs

    cdef int _restore(self, BoundCall call) except -1:
        """Bind a call's addresses again, after other calls of the executor."""
        cdef Py_ssize_t index
        cdef IOSlot* slot
        self.current = 0
        self.outputs.buffers = None
        if self.inputs.record is not call.record or any([each.is_shape_tensor for each in self.slots.inputs]):
            self.inputs.use_record(call.record)
        for index in range(self.slots.count):
            slot = &self.slots.at[index]
            if not (index < self.slots.input_count and slot.is_shape_tensor):
                slot.next_address = call.addresses[index]
            if slot.next_address not in (0, slot.address):
                self.execution.tell_address(index)
        self.current = call.identity
        self.inputs.record = None  # an ordinary call looks its own up: modes may have changed since
        return 0

    cdef int use_on_stream(self, BoundCall call, uintptr_t stream) except -1:
        """Keep the call's own memory from being reused before its work on another stream is done."""
        for owner in call.owners if isinstance(call.owners, (tuple, list)) else (call.owners,):
            if isinstance(owner, torch.Tensor) and owner.is_cuda:
                owner.record_stream(torch.cuda.current_stream(self.slots.device))
        call.stream = stream
        return 0

    cdef int observe(self, observer) except -1:
        cdef BoundCall call
        for call in self.live:
            call.observe(observer)
        return 0

    cdef bint have_graphs(self) except -1:
        cdef BoundCall call
        for call in self.live:
            if call.graph is not None:
                return True
        return False

    cdef int drop_graphs(self) except -1:
        cdef BoundCall call
        for call in self.live:
            call.graph = None
        return 0

    cdef void forget(self) noexcept:
        """Bind the addresses of the next bound call again."""
        self.current = 0
