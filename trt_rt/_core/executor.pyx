# cython: boundscheck=False, wraparound=False
"""The executor: takes tensors, binds and enqueues them, returns the outputs.

The hot path is `Executor.run`: `InputBinding.take_inputs`, one of `OutputBinding.bind_*`, and
`BoundContext.enqueue`; with CUDA graphs on, `GraphBinding.run_graph` in place of the last two. In the
steady state they compare integers and call `execute_async_v3`, or launch a graph.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uintptr_t

from trt_rt._core.bound_context cimport acquire, release
from trt_rt._core.driver cimport is_capturing
from trt_rt._core.graph_binding cimport GraphBinding

from weakref import WeakSet

import torch

from trt_rt._core.arguments import describe
from trt_rt._core.dlpack import view_of
from trt_rt.errors import ClosedError, InputValueError

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]

    Py_ssize_t PyList_GET_SIZE(object)


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


@cython.final
@cython.no_gc_clear
cdef class Executor(GraphBinding):
    """Runs one execution context, and the graphs captured of it, for one stream at a time.

    Parameters
    ----------
    contexts : ContextFactory
        Makes execution contexts, which nobody else uses; kept alive longer than they are.
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
        contexts,
        tuple inputs,
        tuple outputs,
        *,
        device,
        name,
        take_error,
        new_allocator,
        max_shapes=64,
        allocate_all=False,
    ):
        GraphBinding.__init__(
            self,
            contexts,
            inputs,
            outputs,
            allocate_all=allocate_all,
            device=device,
            name=name,
            take_error=take_error,
            new_allocator=new_allocator,
            max_shapes=max_shapes,
        )
        self.accepted = self.input_count
        self.live_calls = WeakSet()

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

    def configure(
        self, *, Py_ssize_t buffers, Py_ssize_t max_graphs, bint allocate_all, int profile, bint new_context
    ):
        """Change how calls are run, from the next one on.

        Parameters
        ----------
        buffers : int
            Sets of outputs that are reused in turn, for each set of input shapes; 0 for fresh outputs.
        max_graphs : int
            CUDA graphs that are kept; 0 for none: every call is enqueued.
        allocate_all : bool
            TensorRT allocates every output.
        profile : int
            The optimization profile to use; -1 for the first that admits the inputs.
        new_context : bool
            The context is to be made anew.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed, or TensorRT refuses.
        """
        acquire(self)
        try:
            self.drop_graphs()
            if new_context:
                self.drop_context()
            elif self.allocate_all and not allocate_all:
                self._unset_allocators()
            self._forget_all()
            if allocate_all != self.allocate_all or profile != self.forced_profile or new_context:
                self.records.clear()
            self.ring_size = buffers
            self.ring_generation += 1
            self.records.drop_buffers()
            self.max_graphs = max_graphs
            self.defers_binding = max_graphs != 0
            self.allocate_all = allocate_all
            self.forced_profile = profile
        finally:
            release(self)

    def _unset_allocators(self):
        """A context keeps an allocator, and would go on asking it, until it is unset."""
        for index, allocator in enumerate(self.allocators):
            if allocator is not None:
                self._switch_allocator(index)

    cdef int drop_graphs(self) except -1:
        cdef BoundCall call
        GraphBinding.drop_graphs(self)
        for call in self.live_calls:
            call.graph = None
        return 0

    cdef bint has_graphs(self) except -1:
        cdef BoundCall call
        if self.graphs:
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

    def pause(self):
        """Wait for work, drop the context and keep calls out until `resume`, which the same thread calls.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        acquire(self)
        try:
            self.drop_graphs()
            self.drop_context()
            self._forget_all()
            self.records.clear()
        except BaseException:
            release(self)
            raise

    def resume(self):
        """Let calls in again; the first of them makes a new context."""
        release(self)

    @property
    def graph_inputs(self):
        """Static inputs for the shapes of the last call, for producers that write in place; None before.

        A call with these very tensors launches a graph with no copy. A shape tensor's is a copy of its
        values.
        """
        acquire(self)
        try:
            return self._graph_inputs()
        finally:
            release(self)

    @property
    def counts(self):
        """How often what has happened, since the executor was made."""
        return {
            "calls": self.calls,
            "captures": self.captures,
            "replays": self.replays,
            "rebinds": self.rebinds,
            "shape_changes": self.shape_changes,
            "careful_reads": self.careful_reads,
        }

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
                self.drop_context()
            finally:
                self.drop_graphs()
                self._forget_all()
                self.records.clear()
                self.contexts = None
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
            if len(args) != self.accepted:
                self._refuse_count(len(args))
            self.bound = 0
            if self.on_cuda:
                self.use_stream()
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
                self._forget_all()
            else:
                self.bound = call.identity
            self.live_calls.add(call)
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
            if count != self.accepted:
                self._refuse_count(count)
            self.bound = 0
            self.calls += 1
            if self.on_cuda:
                self.use_stream()
            if self.max_graphs != 0:
                result = self._run_with_graphs(args, count, out)
            else:
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

    cdef object _run_with_graphs(self, PyObject** args, Py_ssize_t count, object out):
        if not self.on_cuda or not is_capturing(self.stream):
            self.take_inputs(args, count)
            return self.run_graph(args, out)
        # The caller captures: into that graph goes the engine itself, not a graph of ours.
        self._forget_all()
        self.defers_binding = False
        try:
            self.take_inputs(args, count)
            result = self.bind_outputs(args, out)
            if self.record.is_data_dependent:
                return self.collect(result)
            self.enqueue()
            return result
        finally:
            self._forget_all()
            self.defers_binding = True

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
            if self.is_borrowing:
                self.return_stream()
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
        self.graph = None
        self.graph_is_stale = False
        self.forget()

    cdef object run_bound(self, BoundCall call):
        cdef bint succeeded = False
        acquire(self)
        try:
            if self.accepted < 0:
                self._refuse_count(0)
            self.calls += 1
            if self.on_cuda:
                self.use_stream()
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
            self._end(succeeded)

    cdef int _run_bound_graph(self, BoundCall call) except -1:
        if self.on_cuda and is_capturing(self.stream):
            self._restore(call)
            self.enqueue()
            self._forget_all()
        elif call.graph is not None:
            self.launch_graph(call.graph)
        else:
            self.recall(call.record)
            call.graph = self.capture_graph(call.record, call.addresses)
            self._forget_all()
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
