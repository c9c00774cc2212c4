# cython: boundscheck=False, wraparound=False
"""The executor: takes tensors, binds and enqueues them, returns the outputs.

The hot path is `Executor.run`: `InputBinding.take_inputs`, one of `OutputBinding.bind_*`, and
`BoundContext.enqueue`; with CUDA graphs on, `GraphBinding.run_graph` in place of the last two. In the
steady state they compare integers and call `execute_async_v3`, or launch a graph.
"""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uintptr_t

from trt_rt._core.bound_call cimport BoundCalls
from trt_rt._core.bound_context cimport acquire, end_call, release
from trt_rt._core.driver cimport is_capturing
from trt_rt._core.vectorcall cimport PyVectorcall_NARGS, has_keywords, keywords, positional, use_vectorcall

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]


cdef inline PyObject** _items(tuple items) noexcept:
    return (<PyTupleObject*> items).ob_item


@cython.final
@cython.no_gc_clear
cdef class Executor(BoundCalls):
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

    def __cinit__(self, contexts, tuple inputs, tuple outputs, **options):
        self.vectorcall = _call_executor

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
        BoundCalls.__init__(
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

    def __call__(self, *args):
        """Run the engine on `args`, in the order of `inputs`; see `TRTModule.forward`."""
        return self.run(self.callers_stream(), _items(args), PyTuple_GET_SIZE(args), None)

    def run_into(self, tuple args, out):
        """Run the engine on `args`, writing into the caller's `out`.

        Raises
        ------
        InputError, ExecutionError, ClosedError
            As `TRTModule.forward`.
        """
        return self.run(self.callers_stream(), _items(args), PyTuple_GET_SIZE(args), out)

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
            self.forget()
            if allocate_all != self.allocate_all or profile != self.forced_profile or new_context:
                self.records.clear()
            self.ring_size = buffers
            self.ring_generation += 1
            self.records.drop_buffers()
            self.allow_graphs(max_graphs)
            self.allocate_all = allocate_all
            self.forced_profile = profile
        finally:
            release(self)

    def _unset_allocators(self):
        """A context keeps an allocator, and would go on asking it, until it is unset."""
        for index, allocator in enumerate(self.allocators):
            if allocator is not None:
                self._switch_allocator(index)

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
            self.forget()
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

        A call with these very tensors launches a graph with no copy; one with other tensors may overwrite
        them. A shape tensor's is a copy of its values.
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
                try:
                    self.drop_graphs()
                finally:
                    self.forget()
                    self.records.clear()
                    self.contexts = None
        finally:
            release(self)

    cdef object run(self, uintptr_t stream, PyObject** args, Py_ssize_t count, object out):
        """One call."""
        cdef bint succeeded = False
        acquire(self)
        try:
            if count != self.accepted:
                self._refuse_count(count)
            self.bound = 0
            self.calls += 1
            if self.on_cuda:
                self.use_stream(stream)
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
            end_call(self, succeeded)

    cdef object _run_with_graphs(self, PyObject** args, Py_ssize_t count, object out):
        if not self.on_cuda or not is_capturing(self.stream):
            self.take_inputs(args, count)
            return self.run_graph(args, out)
        # The caller captures: into that graph goes the engine itself, not a graph of ours.
        self.forget()
        self.defers_binding = False
        try:
            self.take_inputs(args, count)
            result = self.bind_outputs(args, out)
            if self.record.is_data_dependent:
                return self.collect(result)
            self.enqueue()
            return result
        finally:
            self.forget()
            self.defers_binding = True


cdef object _call_executor(object this, PyObject** args, size_t flags, PyObject* names):
    cdef Executor executor = <Executor> this
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags)
    if has_keywords(names):
        return Executor.__call__(executor, *positional(args, count), **keywords(args, count, names))
    return executor.run(executor.callers_stream(), args, count, None)


use_vectorcall(<PyTypeObject*> Executor, <Py_ssize_t> &(<Executor> <PyObject*> NULL).vectorcall)
