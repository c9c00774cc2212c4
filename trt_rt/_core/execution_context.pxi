"""One execution context, and what it was told.

The calls to TensorRT that set this context up and enqueue its runs are here, and so are the checks of
their return values. `InputBinding` asks the context what follows from input shapes, and `EngineCapture` sets
up the contexts of graphs.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from trt_rt._core.python_objects cimport returns_true

import torch

from trt_rt._core.observed import unobserved

from trt_rt.errors import ExecutionError


@cython.final
@cython.no_gc_clear  # the executor waits for the last work before the context goes
cdef class ExecutionContext:
    """One execution context and what it holds: profile, shapes, addresses, allocators, scratch memory.

    A value is remembered only after TensorRT has accepted it. While `defers_binding` is set, a call with
    known shapes tells this context nothing, because the graph that serves the call has a context of its own.
    New shapes, and calls that get no graph, still use this context.

    Parameters
    ----------
    contexts : ContextFactory
        Makes contexts; kept alive longer than they are.
    slots : SlotTable
        What calls bind.
    stream : CallStream
        Where work goes.
    engine_name : str
        For messages.
    take_error : callable
        Returns TensorRT's last error message, or "", and forgets it.
    new_allocator : callable
        ``new_allocator(io_tensor, device)`` makes an output allocator.
    """

    # Declared in the order in which they are released: TensorRT wants bound methods, then the context,
    # then what its callbacks and memory live in to go.
    cdef object execute          # bound methods of the context
    cdef object set_address
    cdef object set_shape
    cdef object context          # None after `drop`, until the next use
    cdef list allocators         # one per output; None where TensorRT does not allocate
    cdef object settings         # with which the context was made
    cdef bint shares_workspace   # the context runs in scratch memory of ours
    cdef object workspace        # scratch memory of ours that the context uses, or None
    cdef object contexts
    cdef SlotTable slots
    cdef CallStream stream

    cdef str engine_name
    cdef tuple names             # inputs, then outputs
    cdef list input_shapes       # what set_input_shape was told, per input; None while unknown
    cdef int profile             # -1 while unknown
    cdef uint64_t rebinds        # calls of set_tensor_address
    cdef bint defers_binding     # graphs are on: `use_address` only notes that an address has changed
    cdef bint is_stale           # with binding deferred: an address differs from the last call's
    cdef object take_error
    cdef object new_allocator

    def __cinit__(
        self,
        contexts,
        SlotTable slots not None,
        CallStream stream not None,
        str engine_name,
        take_error,
        new_allocator,
    ):
        self.contexts = contexts
        self.slots = slots
        self.stream = stream
        self.engine_name = engine_name
        self.take_error = take_error
        self.new_allocator = new_allocator
        self.names = tuple([tensor.name for tensor in (*slots.inputs, *slots.outputs)])
        self.input_shapes = [None] * slots.input_count
        self.allocators = [None] * slots.output_count
        self.profile = -1
        self.make()

    cdef int make(self) except -1:
        """Make sure that there is a context: a mode or a weight budget may have dropped it."""
        if self.context is None:
            context, self.settings = self.contexts.create()
            self.shares_workspace = self.settings.shared_workspace
            self._use(context)
        return 0

    cdef int observe(self, observer) except -1:
        """Let an observer stand between this and TensorRT; None: nobody any more. Idempotent."""
        contexts = unobserved(self.contexts)
        context = unobserved(self.context)
        if observer is not None and contexts is not None:
            contexts = observer.contexts(contexts)
        if observer is not None and context is not None:
            context = observer.context(context)
        self.contexts = contexts
        if context is not None:
            self._use(context)
        return 0

    cdef int _use(self, context) except -1:
        self.execute = context.execute_async_v3
        self.set_address = context.set_tensor_address
        self.set_shape = context.set_input_shape
        self.context = context
        return 0

    cdef int drop(self) except -1:
        """Let go of the context, whose work must be done."""
        self.execute = self.set_address = self.set_shape = self.context = None
        self.allocators = [None] * self.slots.output_count
        self.workspace = None
        return 0

    cdef inline int use_address(self, Py_ssize_t index) except -1:
        """Set the address that the slot wants next. While binding is deferred, only note that it changed."""
        if self.defers_binding:
            self.is_stale = True
            return 0
        return self.tell_address(index)

    cdef int tell_address(self, Py_ssize_t index) except -1:
        """Set the address that the slot wants next, also while binding is deferred."""
        cdef IOSlot* slot = &self.slots.at[index]
        cdef PyObject* stack[3]
        cdef object address = slot.next_address
        cdef object name = self.names[index]
        self.rebinds += 1
        stack[1] = <PyObject*> name
        stack[2] = <PyObject*> address
        if not returns_true(<PyObject*> self.set_address, stack, 2):
            self.fail(f"set_tensor_address({name!r}, {address:#x})")
        slot.address = slot.next_address
        return 0

    cdef int set_up(self, ShapeRecord record) except -1:
        """Set the context up for a record: everything but the addresses of device tensors."""
        self.use_shapes(record.input_shapes, record.profile)
        self.tell_shape_values()
        self.use_allocators(record)
        self.use_workspace()
        return 0

    cdef int use_shapes(self, tuple shapes, int profile) except -1:
        """Choose a profile and input shapes; only what differs is told to TensorRT."""
        cdef Py_ssize_t index
        self.make()
        if profile != self.profile:
            if self.context.active_optimization_profile != profile:
                if self.context.set_optimization_profile_async(profile, self.stream.argument) is not True:
                    self.fail(f"set_optimization_profile_async({profile})")
            self.profile = profile
            self.input_shapes = [None] * self.slots.input_count
        for index in range(self.slots.input_count):
            if self.slots.at[index].is_dynamic and self.input_shapes[index] != shapes[index]:
                if self.set_shape(self.names[index], shapes[index]) is not True:
                    self.fail(f"set_input_shape({self.names[index]!r}, {shapes[index]})")
                self.input_shapes[index] = shapes[index]
        return 0

    cdef int tell_shape_values(self) except -1:
        """Bind the values of shape tensors: sizes follow from them, and some runtimes copy them at once."""
        cdef Py_ssize_t index
        for index in range(self.slots.input_count):
            if self.slots.at[index].is_shape_tensor:
                self.tell_address(index)
        return 0

    cdef int use_allocators(self, ShapeRecord record) except -1:
        """Let TensorRT allocate the outputs that it must, and no others.

        A context keeps an allocator until it is unset, and then writes nowhere else.
        """
        cdef Py_ssize_t output
        for output in range(self.slots.output_count):
            if (record.outputs[output].ndim < 0) != (self.allocators[output] is not None):
                self._switch_allocator(output)
        return 0

    cdef int unset_allocators(self) except -1:
        """Unset every allocator, because a context goes on asking one until it is unset."""
        cdef Py_ssize_t output
        for output in range(self.slots.output_count):
            if self.allocators[output] is not None:
                self._switch_allocator(output)
        return 0

    cdef int _switch_allocator(self, Py_ssize_t output) except -1:
        tensor = self.slots.outputs[output]
        allocator = None
        if self.allocators[output] is None:
            allocator = self.new_allocator(tensor, self.slots.device)
        if self.context.set_output_allocator(tensor.name, allocator) is not True:
            self.fail(f"set_output_allocator({tensor.name!r})")
        self.allocators[output] = allocator
        return 0

    cdef int use_workspace(self) except -1:
        """Give the context scratch memory for its present shapes and values, if TensorRT does not own it."""
        if self.shares_workspace:
            # For the stream that TensorRT gets: two threads on the default stream have a side stream each.
            self.workspace = self.contexts.give_workspace(self.context, self.stream.argument)
        return 0

    cdef inline int enqueue(self) except -1:
        """Run the engine on the caller's stream."""
        return self.enqueue_through(<PyObject*> self.execute)

    cdef inline int enqueue_through(self, PyObject* execute) except -1:
        """Run the engine through ``execute_async_v3`` of this context or of a graph's."""
        cdef PyObject* stack[2]
        cdef bint accepted
        stack[1] = <PyObject*> self.stream.argument
        if self.stream.needs_events:
            accepted = self._enqueue_with_events(execute, stack)
        else:
            accepted = returns_true(execute, stack, 1)
        if not accepted:
            self.fail("execute_async_v3")
        return 0

    cdef bint _enqueue_with_events(self, PyObject* execute, PyObject** stack) except -1:
        if self.stream.is_default:
            self.stream.order.enter_side_stream()
        try:
            return returns_true(execute, stack, 1)
        finally:
            if self.stream.is_default:
                self.stream.order.leave_side_stream()
            else:
                self.stream.order.mark_done(self.stream.handle)

    cdef int fail(self, str call) except -1:
        """Raise for a call that TensorRT has refused, with the reason that it logged."""
        return self.fail_with(call, self.take_error())

    cdef int fail_with(self, str call, str message) except -1:
        """Raise for a call that TensorRT has refused, with a reason that was taken from its log."""
        device = self.slots.device
        if self.stream.on_cuda and torch.cuda.current_device() != self.stream.device_index:
            call += f" (with cuda:{torch.cuda.current_device()} current, and the engine on {device})"
        says = f"TensorRT says: {message}" if message else "TensorRT logged no reason."
        raise ExecutionError(f"engine {self.engine_name!r}: {call} failed. {says}")

    cdef void forget(self) noexcept:
        """Take no profile and no shape for set any more."""
        self.input_shapes = [None] * self.slots.input_count
        self.profile = -1
        self.is_stale = False
