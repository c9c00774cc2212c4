"""The executor: takes tensors, binds and enqueues them, returns the outputs."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.pystate cimport PyThreadState, PyThreadState_Get
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.critical cimport Gate, clear_frames, enter_as, leave
from trt_rt._core.python_objects cimport items, list_size
from trt_rt._core.vectorcall cimport (
    PyVectorcall_NARGS,
    has_keywords,
    keywords,
    positional,
    use_vectorcall,
    vectorcallfunc,
)

from trt_rt.errors import ClosedError, ExecutionError, InputValueError

cdef Py_ssize_t _FORKED = -2  # for Executor.accepted


@cython.final
@cython.no_gc_clear  # to wait for the last work needs members that would be gone
cdef class Executor:
    """Runs one execution context, and the graphs captured of it, for one stream at a time.

    It owns the parts of a call, each with a state of its own, and puts their steps in order.

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
        How many sets of input shapes are remembered. Default: 64.
    allocate_all : bool, optional
        Whether TensorRT allocates every output, not only those whose shape depends on data. Default: False.
    returns_aliases : bool, optional
        Whether calls return outputs that lie in an input's memory, and ``out=`` has a tensor for each of
        them. Default: True.
    move_input : callable, optional
        ``move_input(tensor, io_tensor, device)`` returns a tensor on `device` for one that is on another.
        Default: such a tensor is refused.

    Notes
    -----
    Safe to call from several threads; calls are serialised. Work goes to the caller's current stream.
    """

    cdef object __weakref__      # an Engine knows its executors without keeping them
    cdef vectorcallfunc vectorcall
    # The parts, in the order in which they are released: whatever uses the context goes before it.
    cdef GraphPolicy graphs      # None while graphs are off
    cdef BoundCalls bound_calls
    cdef OutputBinding outputs
    cdef InputBinding inputs
    cdef ExecutionContext execution
    cdef SlotTable slots
    cdef CallStream stream
    # The number of arguments; -1 once closed, _FORKED in a forked child. A negative value equals no call's
    # number of arguments, so the comparison that refuses wrong numbers refuses these calls too.
    cdef Py_ssize_t accepted
    cdef uint64_t calls
    cdef uint64_t past_captures  # by graphs that were switched off since
    cdef uint64_t past_replays
    cdef uint64_t past_invalidated
    cdef readonly Gate gate      # keeps calls out: an execution context is not thread-safe
    cdef tuple configuration     # what `configure` was last given, None if it has not ended
    cdef PyThreadState* last_caller  # identity only
    cdef readonly object observer  # sees every call; None: calls go directly to `run`

    def __cinit__(
        self,
        contexts,
        tuple inputs not None,
        tuple outputs not None,
        *,
        device,
        name,
        take_error,
        new_allocator,
        Py_ssize_t max_shapes=64,
        bint allocate_all=False,
        bint returns_aliases=True,
        move_input=None,
    ):
        self.vectorcall = _call_executor
        self.gate = Gate(
            f"engine {name!r} was called from within its own call (by a finalizer or a callback)."
        )
        self.stream = CallStream(device, name)
        self.slots = SlotTable(inputs, outputs, device, returns_aliases)
        self.execution = ExecutionContext(contexts, self.slots, self.stream, name, take_error, new_allocator)
        self.inputs = InputBinding(self.slots, self.execution, max_shapes, allocate_all, move_input)
        self.outputs = OutputBinding(self.slots, self.execution, self.inputs)
        self.bound_calls = BoundCalls(self.slots, self.execution, self.inputs, self.outputs)
        self.accepted = self.slots.input_count

    def __dealloc__(self):
        if self.stream is not None:
            self.stream.wait_quietly()  # what a context owns is freed with it

    def __call__(self, *args):
        """Run the engine on `args`, in the order of `inputs`; see `TRTModule.forward`."""
        return self.run_into(args, None)

    def run_into(self, tuple args not None, out):
        """Run the engine on `args`, writing into the caller's `out`.

        Raises
        ------
        InputError, ExecutionError, ClosedError
            As `TRTModule.forward`.
        """
        observer = self.observer
        if observer is not None:
            return observer.call(self, args, out)
        return self.run_unobserved(args, out)

    def run_unobserved(self, tuple args not None, out):
        """As `run_into`; for observers."""
        return self.run(self.stream.current(), items(args), PyTuple_GET_SIZE(args), out)

    cdef object run(self, uintptr_t stream, PyObject** args, Py_ssize_t count, object out):
        """Make one call.

        Calls wait for one another. The executor follows the caller to its stream. The inputs are compared
        with those of the last call, and TensorRT is told what differs. Then the outputs are bound, and the
        engine is enqueued. With graphs on, a graph is launched instead, unless the caller captures a graph of
        its own: the engine itself goes into that. After a failure the executor forgets everything, so that
        the next call binds everything anew.
        """
        cdef bint succeeded = False
        self.acquire()
        try:
            if count != self.accepted:
                self._refuse_count(count)
            self.calls += 1
            self.bound_calls.forget()
            self.use_stream(stream)
            if self.graphs is None:
                self.inputs.take(args, count)
                result = self._enqueue(self.outputs.bind(args, out))
            elif is_capturing(self.stream.handle):
                result = self._run_in_callers_capture(args, count, out)
            else:
                self.inputs.take(args, count)
                result = self.graphs.run(args, out)
            succeeded = True
            return result
        finally:
            self.end_call(succeeded)

    cdef inline object _enqueue(self, object result):
        """Run the engine. Returns the outputs: those that were bound, and those that TensorRT allocates."""
        if self.inputs.record.is_data_dependent:
            return self.outputs.collect(result)
        self.execution.enqueue()
        return result

    cdef object _run_in_callers_capture(self, PyObject** args, Py_ssize_t count, object out):
        """Enqueue the engine itself into the graph that the caller captures."""
        self.forget()
        self.execution.defers_binding = False
        try:
            self.inputs.take(args, count)
            return self._enqueue(self.outputs.bind(args, out))
        finally:
            self.forget()
            self.execution.defers_binding = True

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
        observer = self.observer
        if observer is not None:
            return observer.bind(self, args, out)
        return self.bind_unobserved(args, out)

    def bind_unobserved(self, tuple args not None, out):
        """As `bind`; for observers."""
        cdef BoundCall call = new_bound_call(self, args)
        cdef bint succeeded = False
        self.acquire()
        try:
            if len(args) != self.accepted:
                self._refuse_count(len(args))
            self.bound_calls.forget()
            self.use_stream(self.stream.current())
            self.slots.forget_copies()
            self.inputs.take(items(args), len(args))
            self.bound_calls.refuse_copies(args)
            self.outputs.buffers = None
            if out is not None:
                result = self.outputs.bind_callers(items(args), out)
            else:
                result = self.outputs.bind_returned(items(args), False)
            self.bound_calls.keep(call, result, out is None, self.stream.handle)
            if self.execution.defers_binding:
                self.forget()
            else:
                self.bound_calls.current = call.identity
            self.bound_calls.live.add(call)
            succeeded = True
        finally:
            self.end_call(succeeded)
        return call

    cdef object run_bound(self, BoundCall call):
        """Make one call whose tensors are bound: only enqueue, or launch the call's own graph."""
        cdef bint succeeded = False
        self.acquire()
        try:
            if self.accepted < 0:
                self._refuse_count(0)
            self.calls += 1
            call.overwritten.mark()
            if self.stream.on_cuda:
                self.use_stream(self.stream.current())
                if self.stream.handle != call.stream and not self.stream.is_borrowed:
                    self.bound_calls.use_on_stream(call, self.stream.handle)
            if self.graphs is None or call.outputs is None:
                result = self.bound_calls.run(call)
            elif call.graph is None or is_capturing(self.stream.handle):
                result = self._run_bound_anew(call)
            else:
                self.graphs.capture.launch(call.graph)
                result = call.outputs
            succeeded = True
            return result
        finally:
            self.end_call(succeeded)

    cdef object _run_bound_anew(self, BoundCall call):
        """Make a bound call while graphs are on and none serves it, and capture one of it if possible.

        What the executor remembers is forgotten before and after: it is about calls through graphs, which
        tell the context nothing.
        """
        cdef EngineGraph graph
        if is_capturing(self.stream.handle) or not self.graphs.capture.is_possible():
            self.forget()
            self.bound_calls.run(call)
        else:
            self.inputs.recall(call.record)
            graph = self.graphs.capture.capture(call.record, call.addresses)
            if graph.is_captured:
                call.graph = graph
        self.forget()
        return call.outputs

    cdef inline int acquire(self) except -1:
        """Begin a call. An execution context is not thread-safe, and TensorRT releases the GIL."""
        cdef PyThreadState* thread = PyThreadState_Get()
        enter_as(<PyObject*> self.gate, thread)
        self.last_caller = thread
        return 0

    cdef inline int release(self) except -1:
        return leave(<PyObject*> self.gate)

    cdef inline int end_call(self, bint succeeded) except -1:
        """End a call that `acquire` began.

        Takes a success flag instead of using ``except``, because Cython's ``except`` saves and restores the
        thread's exception state on every call.
        """
        if succeeded and not self.stream.must_restore and list_size(<PyObject*> self.inputs.temporaries) == 0:
            return self.release()
        return self._tidy(succeeded)

    cdef int _tidy(self, bint succeeded) except -1:
        """End a call that failed, or that made copies or changed something for its time."""
        try:
            if not succeeded:
                clear_frames()
                self.forget()
            self.inputs.temporaries.clear()
            return self.stream.restore()
        finally:
            self.release()

    cdef inline int use_stream(self, uintptr_t stream) except -1:
        """Enqueue to the caller's current stream from here on."""
        if self.stream.use(stream):
            self._leave_stream()
        if self.stream.on_cuda:
            self.stream.check_device()
        return 0

    cdef int _leave_stream(self) except -1:
        """Let go of what was allocated for the old stream or thread; see `CallStream.use`."""
        self.drop_graphs()
        self.outputs.buffers = None
        if self.execution.shares_workspace:
            self.inputs.record = None  # the scratch memory of the old stream stays with it
            self.bound_calls.forget()
        return 0

    cdef void forget(self) noexcept:
        """Take nothing for granted, after a failure or a change, so that the next call binds everything."""
        self.slots.forget()
        self.execution.forget()
        self.inputs.forget()
        self.outputs.forget()
        self.bound_calls.forget()
        if self.graphs is not None:
            self.graphs.forget()

    cdef int _wait_and_drop(self) except -1:
        """Wait for the last call's work, and let go of the context; the next call makes another."""
        try:
            self.stream.wait()
        finally:
            self.execution.drop()
            self.forget()
        return 0

    cdef int drop_graphs(self) except -1:
        """Let go of all graphs, and of the memory that they read and write."""
        cdef ShapeRecord record
        if self.bound_calls.have_graphs() or (self.graphs is not None and not self.graphs.is_empty()):
            self.stream.wait()
        if self.graphs is not None:
            self.graphs.clear()
        for record in self.inputs.records.records:
            record.history.clear()
            record.drop_buffers()
        return self.bound_calls.drop_graphs()

    cdef int _allow_graphs(self, Py_ssize_t count) except -1:
        """Keep `count` graphs from now on; 0 switches them off. There are none when this is called."""
        if self.graphs is not None:
            self.past_captures += self.graphs.capture.captures
            self.past_replays += self.graphs.capture.replays
            self.past_invalidated += self.graphs.capture.attempts.invalidated
            self.graphs = None
            self.execution.defers_binding = False
        if count != 0:
            capture = EngineCapture(self.slots, self.stream, self.execution, self.outputs)
            self.graphs = GraphPolicy(capture, self.inputs, count)
            self.execution.defers_binding = True
        return 0

    def configure(
        self, *, Py_ssize_t buffers, Py_ssize_t max_graphs, bint allocate_all, int profile, context_settings
    ):
        """Change how calls are run, from the next one on; only within `gate`. Idempotent.

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
        context_settings : object
            Of the context factory. A context with others is dropped.

        Raises
        ------
        ValueError, OverflowError
            If a count is negative, or too large for a C integer; nothing is changed then.
        ExecutionError
            If CUDA reports that work in flight has failed, or TensorRT refuses.
        """
        cdef tuple configuration = (buffers, max_graphs, allocate_all, profile, context_settings)
        if buffers < 0 or max_graphs < 0:
            raise ValueError(f"buffers={buffers}, max_graphs={max_graphs}: counts cannot be negative.")
        if self.accepted < 0:
            return
        if self.configuration == configuration and self._context_fits(context_settings):
            return
        self.configuration = None
        self.drop_graphs()
        if not self._context_fits(context_settings):
            self._wait_and_drop()
            self.inputs.records.clear()
        elif self.inputs.allocate_all and not allocate_all:
            self.execution.unset_allocators()
        self.forget()
        if allocate_all != self.inputs.allocate_all or profile != self.inputs.forced_profile:
            self.inputs.records.clear()
        self.outputs.use_buffers(buffers)
        self._allow_graphs(max_graphs)
        self.inputs.allocate_all = allocate_all
        self.inputs.forced_profile = profile
        self.configuration = configuration

    def observe(self, observer):
        """Let an observer see the calls from the next one on; only within `gate`. Idempotent.

        Nothing is checked while there is no observer: one replaces what an executor calls. Contexts and
        graphs stay.

        Parameters
        ----------
        observer : object or None
            Its methods make calls: ``call``, ``bind`` and ``bound_call``. Others return what takes the place
            of an object that the executor uses: ``contexts``, ``context``, ``copies`` and ``moves``. None:
            nobody observes.
        """
        if observer is self.observer:
            return
        self.execution.observe(observer)
        self.inputs.observe(observer)
        if self.graphs is not None:
            self.graphs.observe(observer)
        self.bound_calls.observe(observer)
        self.vectorcall = _call_executor if observer is None else _call_observed
        self.observer = observer

    cdef bint _context_fits(self, settings) except -1:
        return self.execution.context is None or self.execution.settings == settings

    def drop_contexts(self):
        """Wait for work and drop every context; only within `gate`. The next call makes a new one.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed.
        """
        self.drop_graphs()
        self._wait_and_drop()
        self.inputs.records.clear()

    def close(self):
        """Wait for the last call's work and let go of the context. Calls raise ClosedError from now on.

        Raises
        ------
        ExecutionError
            If CUDA reports that work in flight has failed; the executor is closed all the same.
        """
        self.acquire()
        try:
            if self.accepted < 0:
                return
            self.accepted = -1
            try:
                self._wait_and_drop()
            finally:
                try:
                    self.drop_graphs()
                finally:
                    self.forget()
                    self.inputs.records.clear()
                    self.execution.contexts = None
        finally:
            self.release()

    def after_fork(self):
        """Make this usable in a forked child, which has no other threads; on CUDA refuse calls.

        An executor of CUDA is kept for ever: nothing of CUDA can be destroyed in the child.
        """
        if self.stream.on_cuda:
            if self.accepted != _FORKED:
                self.accepted = _FORKED
                Py_INCREF(self)
        elif self.gate.is_abandoned:  # in the middle of a call
            self.gate.is_abandoned = False
            self.configuration = None
            self.drop_graphs()
            self.execution.drop()
            self.forget()
            self.inputs.records.clear()
            self.inputs.temporaries.clear()

    @property
    def closed(self):
        """Whether `close` was called."""
        return self.accepted == -1

    @property
    def context(self):
        """The execution context; None while it is dropped."""
        return self.execution.context

    @property
    def optimization_profile(self):
        """The optimization profile of the last call; None before there was one, and after a failed one."""
        cdef ShapeRecord record = self.inputs.record
        return None if record is None else record.profile

    @property
    def graph_inputs(self):
        """Static inputs for the shapes of the last call, for producers that write in place; None before.

        A call with these very tensors launches a graph with no copy; one with other tensors may overwrite
        them. A shape tensor's is a copy of its values.
        """
        self.acquire()
        try:
            return None if self.graphs is None else self.graphs.static_inputs()
        finally:
            self.release()

    def stats(self):
        """Return counters of what has happened since the executor was made; see `TRTModule.stats`.

        Returns
        -------
        dict
        """
        cdef uint64_t captures = self.past_captures
        cdef uint64_t replays = self.past_replays
        cdef uint64_t invalidated = self.past_invalidated
        if self.graphs is not None:
            captures += self.graphs.capture.captures
            replays += self.graphs.capture.replays
            invalidated += self.graphs.capture.attempts.invalidated
        return {
            "calls": self.calls,
            "captures": captures,
            "replays": replays,
            "invalidated_captures": invalidated,
            "rebinds": self.execution.rebinds,
            "shape_changes": self.inputs.shape_changes,
            "careful_reads": self.inputs.careful_reads,
        }

    def last_call(self):
        """Describe how the last call was served; see `describe_last_call`.

        Returns
        -------
        dict or None
            None before there was one, and after a failed one.
        """
        self.acquire()
        try:
            return describe_last_call(self)
        finally:
            self.release()

    cdef int _refuse_count(self, Py_ssize_t count) except -1:
        name = self.execution.engine_name
        if self.accepted == _FORKED:
            raise ExecutionError(
                f"engine {name!r} was loaded before this process was forked, and CUDA cannot be used "
                "in a forked child. Start the process with the method 'spawn' or 'forkserver', and load the "
                "engine there."
            )
        if self.accepted < 0:
            raise ClosedError(f"engine {name!r} was closed; load it again to run it.")
        expected = ", ".join([str(tensor) for tensor in self.slots.inputs]) or "none"
        raise InputValueError(
            f"engine {name!r} takes {self.slots.input_count} input(s), got {count}. Its inputs: {expected}."
        )


cdef object _call_executor(object this, PyObject** args, size_t flags, PyObject* names):
    cdef Executor executor = <Executor> this
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags)
    if has_keywords(names):
        return Executor.__call__(executor, *positional(args, count), **keywords(args, count, names))
    return executor.run(executor.stream.current(), args, count, None)


cdef object _call_observed(object this, PyObject** args, size_t flags, PyObject* names):
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags)
    if has_keywords(names):
        return _call_executor(this, args, flags, names)
    return Executor.run_into(this, positional(args, count), None)


use_vectorcall(<PyTypeObject*> Executor, <Py_ssize_t> &(<Executor> <PyObject*> NULL).vectorcall)
