# cython: boundscheck=False, wraparound=False
"""The executor: takes tensors, binds and enqueues them, returns the outputs.

The hot path is `Executor.run`: `InputBinding.take_inputs`, one of the `_bind_*` for the outputs, and
`BoundContext.enqueue`. In the steady state they compare integers and call `execute_async_v3`.
"""

cimport cython
from cpython.exc cimport PyErr_Clear
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uintptr_t

from trt_rt._core.bound_context cimport acquire, release
from trt_rt._core.dlpack cimport DLTensor
from trt_rt._core.input_binding cimport InputBinding
from trt_rt._core.io_slot cimport (
    IOSlot,
    TensorLayout,
    is_bindable_as,
    is_contiguous,
    layout_bytes,
    same_kind,
    same_shape,
)
from trt_rt._core.shape_record cimport OutputBuffers, ShapeRecord

import torch

from trt_rt._core.allocation import empty_function
from trt_rt._core.arguments import as_plain_tensor, describe, refuse_kind
from trt_rt._core.dlpack import view_of
from trt_rt.errors import ClosedError, ExecutionError, InputTypeError, InputValueError

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]

    PyObject* PyList_GET_ITEM(object, Py_ssize_t)  # borrowed
    Py_ssize_t PyList_GET_SIZE(object)
    PyObject* PyObject_Vectorcall(object, PyObject* const*, size_t, PyObject*) noexcept  # NULL: raised

cdef extern from *:
    """
    static int trt_rt_raise_pending(void) { return -1; }
    """
    int raise_pending "trt_rt_raise_pending" () except -1  # lets Cython see the exception that C code set


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
cdef class Executor(InputBinding):
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

    def __cinit__(self, context, tuple inputs, tuple outputs, **options):
        self.aliased = <Py_ssize_t*> PyMem_Calloc(max(len(outputs), 1), sizeof(Py_ssize_t))
        if self.aliased == NULL:
            raise MemoryError()

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
        cdef Py_ssize_t output
        InputBinding.__init__(
            self,
            context,
            inputs,
            outputs,
            device=device,
            name=name,
            take_error=take_error,
            owner=owner,
            new_allocator=new_allocator,
            max_shapes=max_shapes,
        )
        self.accepted = self.input_count
        self.allocate_all = allocate_all
        self.allocate = empty_function(device)
        self.allocate_on_host = empty_function(torch.device("cpu"))
        names = [tensor.name for tensor in inputs]
        for output in range(self.output_count):
            source = outputs[output].aliased_input
            self.aliased[output] = -1 if source is None else names.index(source)
            if source is not None:
                self.has_aliases = True
                self.slots[self.aliased[output]].is_written = True

    def __dealloc__(self):
        PyMem_Free(self.aliased)

    def __call__(self, *args):
        """Run the engine on `args`, in the order of `inputs`; see `TRTModule.forward`."""
        return self.run(_items(args), PyTuple_GET_SIZE(args), None)

    def run_into(self, tuple args, out):
        """Run the engine on `args`, writing into the caller's `out`; see `TRTModule.forward`."""
        return self.run(_items(args), PyTuple_GET_SIZE(args), out)

    @property
    def closed(self):
        """Whether `close` was called."""
        return self.accepted < 0

    def set_pre_allocated_outputs(self, Py_ssize_t buffers):
        """Reuse `buffers` sets of outputs per set of input shapes in turn; 0 for fresh outputs."""
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
        """Wait for the last call's work and let go of the context. Calls raise ClosedError from now on."""
        acquire(self)
        try:
            if self.accepted < 0:
                return
            self.accepted = -1
            if self.has_stream:
                self.order.wait_for(self.stream)
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
                result = self._bind_callers(_items(args), out)
            else:
                result = self._bind_fresh(_items(args))
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
                    f"input {tensor} cannot be bound: {describe(args[index])} would have to be copied, and the "
                    "copy would not see what is written into the tensor later. Bind a contiguous "
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
                result = self._bind_outputs(args, out)
            else:
                result = self._bind_preallocated()
            if self.record.is_data_dependent:
                result = self._collect(result)
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
                result = self._collect(call.results)
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

    cdef object _bind_outputs(self, PyObject** args, object out):
        self.buffers = None  # those of other shapes must not be taken for this call's, or a later one's
        if out is not None:
            return self._bind_callers(args, out)
        if self.ring_size != 0 and not self.has_aliases and not self.record.is_data_dependent:
            self._choose_buffers()
            return self._bind_preallocated()
        return self._bind_fresh(args)

    cdef object _bind_fresh(self, PyObject** args):
        """New tensors from PyTorch's caching allocator, for the caller's stream."""
        cdef Py_ssize_t output
        cdef tuple result
        if self.output_count == 1:
            return self._fresh_output(args, 0)
        result = PyTuple_New(self.output_count)
        for output in range(self.output_count):
            value = self._fresh_output(args, output)
            Py_INCREF(value)
            PyTuple_SET_ITEM(result, output, value)
        return result

    cdef object _fresh_output(self, PyObject** args, Py_ssize_t output):
        cdef DLTensor tensor
        cdef object allocation
        cdef PyObject* allocated
        if self.aliased[output] >= 0:
            return self._aliased_output(args, output)
        allocation = self.record.allocations[output]
        if allocation is None:  # TensorRT allocates it
            return None
        allocate = self.allocate_on_host if self.slots[self.input_count + output].is_shape_tensor else self.allocate
        allocated = PyObject_Vectorcall(allocate, _items(<tuple> allocation), 3, NULL)
        if allocated == NULL:
            self._fail_allocation(output)
        value = <object> allocated
        Py_DECREF(value)  # the call's reference; `value` holds its own
        if self.api.dltensor_from_py_object_no_sync(<PyObject*> value, &tensor) != 0:
            raise_pending()
        self._bind_output(output, &tensor)
        return value

    cdef object _fail_allocation(self, Py_ssize_t output):
        try:
            raise_pending()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what PyTorch raises on a CPU, and for sizes beyond any machine
            shape = self.record.allocations[output][0]
            raise MemoryError(f"output {self.outputs[output]}: no memory for shape {list(shape)}: {error}") from None

    cdef object _aliased_output(self, PyObject** args, Py_ssize_t output):
        """The caller's own tensor: the engine writes into it."""
        cdef Py_ssize_t source = self.aliased[output]
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        slot.next_address = self.slots[source].next_address
        if slot.next_address != slot.address:
            self.bind_address(self.input_count + output)
        return <object> args[source]

    cdef int _bind_output(self, Py_ssize_t output, const DLTensor* tensor) except -1:
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        slot.next_address = <uintptr_t> tensor.data if tensor.data != NULL else self.placeholder_address
        slot.last_object = NULL
        if slot.next_address != slot.address:
            self.bind_address(self.input_count + output)
        return 0

    cdef object _bind_preallocated(self):
        """The next set of the ring; a view that the caller has altered in place is made anew."""
        cdef Py_ssize_t output
        cdef IOSlot* slot
        cdef OutputBuffers buffers = self.buffers
        cdef DLTensor tensor
        for output in range(self.output_count):
            slot = &self.slots[self.input_count + output]
            if (
                self.api.dltensor_from_py_object_no_sync(PyList_GET_ITEM(buffers.views, output), &tensor) != 0
                or <uintptr_t> tensor.data != buffers.addresses[output]
                or not is_bindable_as(&tensor, &buffers.layouts[output])
            ):
                PyErr_Clear()
                buffers.renew_view(output)
            slot.next_address = buffers.addresses[output] or self.placeholder_address
            if slot.next_address != slot.address:
                self.bind_address(self.input_count + output)
        if self.ring_size != 1:
            self.buffers = None
        return buffers.result

    cdef int _choose_buffers(self) except -1:
        cdef ShapeRecord record = self.record
        if record.ring_generation != self.ring_generation:
            record.ring.clear()
            record.turn = 0
            record.ring_generation = self.ring_generation
        if record.turn == len(record.ring):
            record.ring.append(self._new_buffers())
        self.buffers = record.ring[record.turn]
        record.turn = (record.turn + 1) % self.ring_size
        return 0

    cdef OutputBuffers _new_buffers(self):
        cdef Py_ssize_t output
        cdef OutputBuffers buffers
        owners = []
        for output in range(self.output_count):
            owners.append(self._fresh_output(NULL, output))
        buffers = OutputBuffers(tuple(owners))
        buffers.set_layouts(self.record.outputs)
        return buffers

    cdef object _bind_callers(self, PyObject** args, object out):
        """The tensors that the caller passed as ``out=``."""
        cdef Py_ssize_t output
        values = self._listed(out)
        if len(values) != self.output_count:
            raise InputValueError(
                f"engine {self.name!r} has {self.output_count} output(s), but out= holds {len(values)}."
            )
        if self.record.is_data_dependent:
            raise InputValueError(
                f"engine {self.name!r}: out= cannot be used, because TensorRT allocates an output whose size is "
                "known after the run only."
            )
        for output in range(self.output_count):
            self._take_output(args, output, values[output])
        for output in range(self.output_count):
            if self._overlaps(output):
                raise InputValueError(
                    f"output {self.outputs[output]}: its memory in out= overlaps an input's or another output's, "
                    "so that the engine would overwrite what it still reads. Pass memory of its own."
                )
        for output in range(self.output_count):
            if self.slots[self.input_count + output].next_address != self.slots[self.input_count + output].address:
                self.bind_address(self.input_count + output)
        return out if isinstance(out, (torch.Tensor, tuple, list)) else values

    def _listed(self, out):
        if isinstance(out, torch.Tensor):
            return (out,)
        try:
            return tuple(out)
        except TypeError:
            raise InputTypeError(
                f"engine {self.name!r}: out= takes a torch.Tensor or a sequence of them; got {describe(out)}."
            ) from None

    cdef int _take_output(self, PyObject** args, Py_ssize_t output, object value) except -1:
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        cdef TensorLayout* layout = &self.record.outputs[output]
        cdef DLTensor tensor
        target = self.outputs[output]
        if type(value) is not torch.Tensor:
            if not isinstance(value, torch.Tensor) or as_plain_tensor(value, target).data_ptr() != value.data_ptr():
                raise InputTypeError(f"output {target}: out= needs a torch.Tensor; got {describe(value)}.")
        if self.api.dltensor_from_py_object_no_sync(<PyObject*> value, &tensor) != 0:
            PyErr_Clear()
            refuse_kind(value, target, self.device)
        if not same_kind(layout, &tensor):
            refuse_kind(value, target, self.device)
        if not same_shape(layout, &tensor):
            shape = [layout.shape[i] for i in range(layout.ndim)]
            raise InputValueError(f"output {target} has shape {shape} here; out= is {describe(value)}.")
        slot.next_address = <uintptr_t> tensor.data if layout_bytes(layout) else self.placeholder_address
        if <PyObject*> value == slot.last_object and slot.next_address == slot.address and is_contiguous(&tensor):
            return 0
        if self.aliased[output] >= 0 and slot.next_address != self.slots[self.aliased[output]].next_address:
            raise InputValueError(
                f"output {target} lies in the memory of input {target.aliased_input!r}; pass that tensor in out=."
            )
        if (
            not is_contiguous(&tensor)
            or slot.next_address == 0
            or (slot.next_address & (self.alignment - 1) and not slot.is_shape_tensor)
            or self.is_negative(<PyObject*> value)
        ):
            raise InputValueError(
                f"output {target}: out= must be contiguous and start at a multiple of {self.alignment} bytes; got "
                f"{describe(value)} with strides {list(value.stride())} at address {value.data_ptr():#x}."
            )
        slot.last_object = <PyObject*> value
        return 0

    cdef bint _overlaps(self, Py_ssize_t output) noexcept:
        """Whether an output's memory meets another output's or an input's, aliases by design aside."""
        cdef Py_ssize_t index
        cdef uintptr_t begin = self.slots[self.input_count + output].next_address
        cdef uintptr_t end = begin + layout_bytes(&self.record.outputs[output])
        cdef uintptr_t other
        cdef const TensorLayout* layout
        for index in range(self.input_count + self.output_count):
            if index == self.input_count + output or index == self.aliased[output]:
                continue
            other = self.slots[index].next_address
            if index < self.input_count:
                layout = &self.slots[index].layout
            else:
                layout = &self.record.outputs[index - self.input_count]
            if begin < end and begin < other + layout_bytes(layout) and other < end:
                return True
        return False

    cdef object _collect(self, object result):
        """Enqueue, and put the outputs that TensorRT allocated in their places."""
        values = list(result) if isinstance(result, (tuple, list)) else [result]
        for allocator in self.allocators:
            if allocator is not None:
                allocator.start()
        try:
            self.enqueue()
        except ExecutionError as failure:
            for allocator in self.allocators:
                if allocator is not None and allocator.error is not None:
                    raise allocator.error from failure
            raise
        for output, allocator in enumerate(self.allocators):
            if allocator is not None:
                values[output] = allocator.take()
        return values[0] if len(values) == 1 else tuple(values)
