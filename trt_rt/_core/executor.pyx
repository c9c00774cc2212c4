# cython: boundscheck=False, wraparound=False
"""The executor: takes tensors, binds and enqueues them, returns the outputs.

The hot path is `Executor.run`: `InputBinding.take_inputs`, one of `OutputBinding.bind_*`, and
`BoundContext.enqueue`. In the steady state they compare integers and call `execute_async_v3`.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uintptr_t

from trt_rt._core.bound_context cimport acquire, release
from trt_rt._core.output_binding cimport OutputBinding

from trt_rt._core.arguments import describe
from trt_rt._core.dlpack import view_of
from trt_rt.errors import ClosedError, InputValueError

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]

    Py_ssize_t PyList_GET_SIZE(object)


cdef inline PyObject** _items(tuple items) noexcept:
    return (<PyTupleObject*> items).ob_item


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

    def __cinit__(self, Executor executor not None, tuple inputs):
        cdef Py_ssize_t count = executor.input_count + executor.output_count
        self.executor = executor
        self.inputs = inputs
        self.addresses = <uintptr_t*> PyMem_Calloc(max(count, 1), sizeof(uintptr_t))
        if self.addresses == NULL:
            raise MemoryError()

    def __init__(self, *args, **kwargs):
        raise TypeError("bound calls are made by TRTModule.bind")

    def __dealloc__(self):
        PyMem_Free(self.addresses)

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


@cython.final
cdef class Executor(OutputBinding):
    """Runs one execution context.

    Parameters
    ----------
    context : IExecutionContext
        Used by nobody else from now on.
    inputs, outputs : tuple of IOTensor
        In the order of a call's arguments and results.
    device : torch.device
        Where device tensors live: ``cpu``, or ``cuda`` with an index.
    name : str
        For messages.
    take_error : callable
        Returns TensorRT's last error message, or "", and forgets it.
    new_allocator : callable
        ``new_allocator(io_tensor, device)`` makes an output allocator with ``start()``, ``take()`` and
        ``error``.
    owner : object
        Kept alive longer than the context.
    max_shapes : int, optional
        How many sets of input shapes are remembered.
    allocate_all : bool, optional
        TensorRT allocates every output, not only those whose shape depends on data.

    Notes
    -----
    Safe to call from several threads; calls are serialised. Work goes to the caller's current stream.
    """

    def __init__(
        self,
        context,
        tuple inputs,
        tuple outputs,
        *,
        device,
        name,
        take_error,
        new_allocator,
        owner=None,
        max_shapes=64,
        allocate_all=False,
    ):
        OutputBinding.__init__(
            self,
            context,
            inputs,
            outputs,
            allocate_all=allocate_all,
            device=device,
            name=name,
            take_error=take_error,
            owner=owner,
            new_allocator=new_allocator,
            max_shapes=max_shapes,
        )
        self.accepted = self.input_count

    def __call__(self, *args):
        """Run the engine on `args`, in the order of `inputs`; see `TRTModule.forward`."""
        return self.run(_items(args), PyTuple_GET_SIZE(args), None)

    def run_into(self, tuple args, out):
        """Run the engine on `args`, writing into the caller's `out`.

        Raises
        ------
        InputError, ExecutionError, ClosedError
            As `TRTModule.forward`.
        """
        return self.run(_items(args), PyTuple_GET_SIZE(args), out)

    @property
    def closed(self):
        """Whether `close` was called."""
        return self.accepted < 0

    def set_pre_allocated_outputs(self, Py_ssize_t buffers):
        """Reuse `buffers` sets of outputs per set of input shapes in turn; 0 for fresh outputs.

        Raises
        ------
        ValueError
            If `buffers` is negative.
        """
        if buffers < 0:
            raise ValueError(f"buffers={buffers}: the number of output sets cannot be negative")
        acquire(self)
        try:
            self.ring_size = buffers
            self.ring_generation += 1
            self.buffers = None
            self.records.drop_buffers()
        finally:
            release(self)

    def close(self):
        """Wait for the last call's work and let go of the context. Calls raise ClosedError from now on.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed; the executor is closed all the same.
        """
        acquire(self)
        try:
            if self.accepted < 0:
                return
            self.accepted = -1
            try:
                if self.has_stream:
                    self.order.wait_for(self.stream, self.on_external_stream)
            finally:
                self._forget_all()
                self.records.clear()
                self.execute = self.set_address = self.set_shape = self.context = None
                self.allocators = [None] * self.output_count
                self.owner = None
        finally:
            release(self)

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
            self._begin(len(args))
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
            self.bound = call.identity = self.bound_calls
            succeeded = True
        finally:
            self._end(succeeded)
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

    cdef object run(self, PyObject** args, Py_ssize_t count, object out):
        """One call."""
        cdef bint succeeded = False
        acquire(self)
        try:
            self._begin(count)
            self.take_inputs(args, count)
            if self.shapes_changed or self.buffers is None or out is not None:
                result = self.bind_outputs(args, out)
            else:
                result = self.bind_preallocated()
            if self.record.is_data_dependent:
                result = self.collect(result)
            else:
                self.enqueue()
            succeeded = True
            return result
        finally:
            self._end(succeeded)

    cdef inline int _begin(self, Py_ssize_t count) except -1:
        if count != self.accepted:
            self._refuse_count(count)
        self.bound = 0
        if self.on_cuda:
            self.use_stream()
        return 0

    def _refuse_count(self, Py_ssize_t count):
        if self.accepted < 0:
            raise ClosedError(f"engine {self.name!r} was closed; load it again to run it.")
        expected = ", ".join(str(tensor) for tensor in self.inputs) or "none"
        raise InputValueError(
            f"engine {self.name!r} takes {self.input_count} input(s), got {count}. Its inputs: {expected}."
        )

    cdef inline int _end(self, bint succeeded) except -1:
        # try/finally with a flag: `except` would save the thread's exception state on every call.
        if succeeded and self.previous_device < 0 and PyList_GET_SIZE(self.temporaries) == 0:
            release(self)
            return 0
        return self._tidy(succeeded)

    cdef int _tidy(self, bint succeeded) except -1:
        try:
            if not succeeded:
                self._forget_all()
            self.temporaries.clear()
            if self.previous_device >= 0:
                self.restore_device()
            return 0
        finally:
            release(self)

    cdef void _forget_all(self) noexcept:
        """After a failure nothing is taken for granted, so that the next call binds everything."""
        self.bound = 0
        self.record = None
        self.buffers = None
        self.forget()

    cdef object run_bound(self, BoundCall call):
        cdef bint succeeded = False
        acquire(self)
        try:
            if self.accepted < 0:
                self._refuse_count(0)
            if self.on_cuda:
                self.use_stream()
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
            self._end(succeeded)

    cdef int _restore(self, BoundCall call) except -1:
        """Bind a BoundCall's addresses again, after other calls of this executor."""
        cdef Py_ssize_t index
        self.bound = 0
        self.buffers = None
        if self.record is not call.record or any([tensor.is_shape_tensor for tensor in self.inputs]):
            self.use_record(call.record)
        for index in range(self.input_count + self.output_count):
            self.slots[index].last_object = NULL
            if not (index < self.input_count and self.slots[index].is_shape_tensor):
                self.slots[index].next_address = call.addresses[index]
            if self.slots[index].next_address not in (0, self.slots[index].address):
                self.bind_address(index)
        self.bound = call.identity
        return 0
