"""Binds the outputs of a call: fresh, pre-allocated, the caller's, or those that TensorRT allocates."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.dlpack cimport DLTensor, pack_device, read_tensor
from trt_rt._core.python_objects cimport items, list_item, raise_pending, try_vectorcall
from trt_rt._core.tensor_layout cimport (
    TensorLayout,
    is_bindable_as,
    is_contiguous,
    layout_bytes,
    same_kind,
    same_shape,
)

import torch

from trt_rt._core.allocation import empty_function
from trt_rt._core.arguments import as_plain_tensor, describe, refuse_kind, refuse_to_write
from trt_rt.errors import ExecutionError, InputTypeError, InputValueError


cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1


cdef enum OutputPolicy:
    # How calls without ``out=`` get their outputs. It follows from the engine and its modes, and stays the
    # same until a mode changes. `OutputKind` says where the outputs of one call are, also with ``out=``.
    FRESH_OUTPUTS  # new tensors, all of which are returned
    RING_OUTPUTS  # sets of tensors that are reused in turn
    FRESH_WITH_HIDDEN_ALIASES  # new tensors; outputs in an input's memory are bound, but not returned


@cython.final
@cython.no_gc_clear
cdef class OutputBinding:
    """The outputs of the calls of one executor.

    Parameters
    ----------
    slots : SlotTable
        What outputs are compared with.
    execution : ExecutionContext
        What is told of their addresses.
    inputs : InputBinding
        Whose record says what the outputs of a call are.
    returns_aliases : bool
        Whether calls return outputs that lie in an input's memory.
    """

    cdef ExecutionContext execution
    cdef InputBinding inputs
    cdef SlotTable slots
    cdef IOSlot* at              # of the outputs
    cdef Py_ssize_t count
    cdef Py_ssize_t* aliased     # per output: index of the input whose memory it lies in, or -1
    cdef bint has_aliases
    cdef list returned           # indexes of the outputs that calls return
    # The number of outputs if calls return them all; else -1, which equals no number of tensors in ``out=``.
    cdef Py_ssize_t all_returned
    cdef OutputPolicy policy
    cdef object allocate
    cdef object allocate_on_host
    cdef Py_ssize_t ring_size    # sets of pre-allocated outputs; 0 for fresh ones
    cdef uint64_t ring_generation  # changes with ring_size: earlier rings are not used
    cdef OutputBuffers buffers   # the set that the next call with these shapes uses, or None

    def __cinit__(
        self,
        SlotTable slots not None,
        ExecutionContext execution not None,
        InputBinding inputs not None,
        bint returns_aliases,
    ):
        cdef Py_ssize_t output
        self.slots = slots
        self.execution = execution
        self.inputs = inputs
        self.at = &slots.at[slots.input_count]
        self.count = slots.output_count
        self.allocate = empty_function(slots.device)
        self.allocate_on_host = empty_function(torch.device("cpu"))
        self.aliased = <Py_ssize_t*> PyMem_Calloc(max(self.count, 1), sizeof(Py_ssize_t))
        if self.aliased == NULL:
            raise MemoryError()
        names = [tensor.name for tensor in slots.inputs]
        for output in range(self.count):
            source = slots.outputs[output].aliased_input
            self.aliased[output] = -1 if source is None else names.index(source)
            if source is not None:
                self.has_aliases = True
                slots.at[self.aliased[output]].is_written = True
                inputs.has_state = True
        self.returned = [
            output for output in range(self.count) if returns_aliases or self.aliased[output] < 0
        ]
        self.all_returned = self.count if len(self.returned) == self.count else -1
        self._choose_policy()

    def __dealloc__(self):
        PyMem_Free(self.aliased)

    cdef int use_buffers(self, Py_ssize_t count) except -1:
        """Reuse `count` sets of outputs in turn from now on; 0 for fresh outputs."""
        self.ring_size = count
        self._choose_policy()
        self.ring_generation += 1
        self.inputs.records.drop_buffers()
        return 0

    cdef void _choose_policy(self) noexcept:
        if self.all_returned < 0:
            self.policy = FRESH_WITH_HIDDEN_ALIASES
        elif self.ring_size != 0 and not self.has_aliases:
            self.policy = RING_OUTPUTS
        else:
            self.policy = FRESH_OUTPUTS

    cdef inline object bind(self, PyObject** args, object out):
        """Bind the outputs of a call whose inputs were taken, and return them."""
        if self.inputs.shapes_changed or self.buffers is None or out is not None:
            return self._bind_anew(args, out)
        return self.bind_preallocated()

    cdef object _bind_anew(self, PyObject** args, object out):
        self.buffers = None  # those of other shapes must not be taken for this call's, or a later one's
        if out is not None:
            return self.bind_callers(args, out)
        if self.policy != FRESH_OUTPUTS:
            if self.policy == FRESH_WITH_HIDDEN_ALIASES:
                return self.bind_returned(args, False)
            if not self.inputs.record.is_data_dependent:
                self.choose_buffers()
                return self.bind_preallocated()
        return self.bind_fresh(args, False)

    cdef object bind_fresh(self, PyObject** args, bint is_copied):
        """New tensors from PyTorch's caching allocator, for the caller's stream.

        `is_copied` says that a graph will copy its outputs to them, so that nothing needs to know their
        addresses.
        """
        cdef Py_ssize_t output
        cdef tuple result
        if self.count == 1:
            return self._fresh_output(args, 0, is_copied)
        result = PyTuple_New(self.count)
        for output in range(self.count):
            value = self._fresh_output(args, output, is_copied)
            Py_INCREF(value)
            PyTuple_SET_ITEM(result, output, value)
        return result

    cdef object bind_returned(self, PyObject** args, bint is_copied):
        """Bind outputs as `bind_fresh` does, and return those that calls return."""
        cdef Py_ssize_t output
        if self.policy != FRESH_WITH_HIDDEN_ALIASES:
            return self.bind_fresh(args, is_copied)
        values = [self._fresh_output(args, output, is_copied) for output in range(self.count)]
        returned = tuple([values[output] for output in self.returned])
        return returned[0] if len(returned) == 1 else returned

    cdef object _fresh_output(self, PyObject** args, Py_ssize_t output, bint is_copied):
        cdef DLTensor tensor
        cdef IOSlot* slot = &self.at[output]
        if self.aliased[output] >= 0:
            return self._aliased_output(args, output)
        if self.inputs.record.allocations[output] is None:  # TensorRT allocates it
            return None
        value = self.allocate_output(output, &tensor)
        slot.next_address = <uintptr_t> tensor.data if tensor.data != NULL else self.slots.placeholder_address
        if is_copied:
            slot.address = slot.next_address  # so that another address makes no graph stale
        elif slot.next_address != slot.address:
            self.execution.use_address(self.slots.input_count + output)
        return value

    cdef object allocate_output(self, Py_ssize_t output, DLTensor* tensor):
        """Return a new tensor, and put its description into `tensor`."""
        cdef object allocation = self.inputs.record.allocations[output]
        cdef PyObject* allocated
        cdef PyObject* allocate = <PyObject*> self.allocate
        if self.at[output].is_shape_tensor:
            allocate = <PyObject*> self.allocate_on_host
        allocated = try_vectorcall(allocate, items(<tuple> allocation), 3, NULL)
        if allocated == NULL:
            self._fail_allocation(output)
        value = <object> allocated
        Py_DECREF(value)  # the call's reference; `value` holds its own
        if self.slots.api.dltensor_from_py_object_no_sync(<PyObject*> value, tensor) != 0:
            raise_pending()
        if pack_device(tensor.device.device_type, tensor.device.device_id) != self.at[output].layout.device:
            self._refuse_current_device()
        return value

    cdef int _refuse_current_device(self) except -1:
        device = self.slots.device
        raise ExecutionError(
            f"engine {self.execution.engine_name!r} is on {device}, but the current device is "
            f"cuda:{torch.cuda.current_device()}, where its outputs would be. Call it under "
            f"torch.cuda.device({device.index}), or call set_multi_device_safe_mode(True)."
        )

    cdef int _fail_allocation(self, Py_ssize_t output) except -1:
        try:
            raise_pending()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what PyTorch raises on a CPU, and for sizes beyond any machine
            shape = self.inputs.record.allocations[output][0]
            raise MemoryError(
                f"output {self.slots.outputs[output]}: no memory for shape {list(shape)}: {error}"
            ) from None

    cdef object _aliased_output(self, PyObject** args, Py_ssize_t output):
        """Return the caller's own tensor, into which the engine writes."""
        cdef Py_ssize_t source = self.aliased[output]
        cdef IOSlot* slot = &self.at[output]
        slot.next_address = self.slots.at[source].next_address
        if slot.next_address != slot.address:
            self.execution.use_address(self.slots.input_count + output)
        mark_overwritten(args[source])
        return <object> args[source]

    cdef object bind_preallocated(self):
        """Bind the next set of the ring. A view that the caller has altered in place is made anew."""
        cdef Py_ssize_t output
        cdef IOSlot* slot
        cdef OutputBuffers buffers = self.buffers
        for output in range(self.count):
            slot = &self.at[output]
            if not buffers.is_unaltered(output, self.slots.api):
                buffers.renew_view(output)
            else:
                mark_overwritten(list_item(<PyObject*> buffers.views, output))
            slot.next_address = buffers.addresses[output] or self.slots.placeholder_address
            if slot.next_address != slot.address:
                self.execution.use_address(self.slots.input_count + output)
        if self.ring_size != 1:
            self.buffers = None
        return buffers.result

    cdef int choose_buffers(self) except -1:
        """Make the next set of the record's ring the one that is bound."""
        cdef ShapeRecord record = self.inputs.record
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
        for output in range(self.count):
            owners.append(self._fresh_output(NULL, output, False))
        buffers = OutputBuffers(tuple(owners))
        buffers.set_layouts(self.inputs.record.outputs)
        return buffers

    cdef object bind_callers(self, PyObject** args, object out):
        """Bind the tensors that the caller passed as ``out=``."""
        cdef Py_ssize_t output
        cdef tuple given = self._listed(out)
        cdef tuple values = given
        if len(given) != self.all_returned:
            values = self._with_aliases(args, given)
        if self.inputs.record.is_data_dependent:
            self._refuse_out()
        for output in range(self.count):
            self._take_output(output, values[output])
        for output in range(self.count):
            if self._overlaps(output):
                raise InputValueError(
                    f"output {self.slots.outputs[output]}: its memory in out= overlaps an input's or another "
                    "output's, so that the engine would overwrite what it still reads. Pass memory of its "
                    "own."
                )
        for output in range(self.count):
            mark_overwritten(items(values)[output])
            if self.aliased[output] >= 0:
                mark_overwritten(args[self.aliased[output]])
            if self.at[output].next_address != self.at[output].address:
                self.execution.use_address(self.slots.input_count + output)
        return out if type(out) is list else given[0] if isinstance(out, torch.Tensor) else given

    cdef tuple _with_aliases(self, PyObject** args, tuple given):
        """Return a tensor for each output, where the caller gave one for each output that calls return."""
        cdef Py_ssize_t output
        if len(given) != len(self.returned):
            raise InputValueError(
                f"a call of engine {self.execution.engine_name!r} returns {len(self.returned)} output(s), "
                f"but out= holds {len(given)}."
            )
        values = iter(given)
        return tuple([
            next(values) if output in self.returned else <object> args[self.aliased[output]]
            for output in range(self.count)
        ])

    cdef int _refuse_out(self) except -1:
        name = self.execution.engine_name
        if self.inputs.allocate_all:
            raise InputValueError(
                f"engine {name!r}: out= cannot be used while TensorRT allocates every output. Leave "
                "enable_output_allocator, or make the module without requires_output_allocator=True."
            )
        raise InputValueError(
            f"engine {name!r}: out= cannot be used, because TensorRT allocates an output whose size is known "
            "after the run only."
        )

    cdef tuple _listed(self, out):
        if type(out) is tuple:
            return out
        if (<PyObject*> out).ob_type == self.slots.tensor_type or isinstance(out, torch.Tensor):
            return (out,)
        try:
            return tuple(out)
        except TypeError:
            raise InputTypeError(
                f"engine {self.execution.engine_name!r}: out= takes a torch.Tensor or a sequence of them; "
                f"got {describe(out)}."
            ) from None

    cdef int _take_output(self, Py_ssize_t output, object value) except -1:
        """Read and check a tensor that the engine is to write into."""
        cdef IOSlot* slot = &self.at[output]
        cdef TensorLayout* layout = &self.inputs.record.outputs[output]
        cdef Py_ssize_t source = self.aliased[output]
        cdef DLTensor tensor
        if (<PyObject*> value).ob_type != self.slots.tensor_type:
            self._refuse_subclass(output, value)
        if not read_tensor(self.slots.api, <PyObject*> value, &tensor) or not same_kind(layout, &tensor):
            refuse_kind(value, self.slots.outputs[output], self.slots.device)
        if not same_shape(layout, &tensor):
            shape = [layout.shape[i] for i in range(layout.ndim)]
            raise InputValueError(
                f"output {self.slots.outputs[output]} has shape {shape} here; out= is {describe(value)}."
            )
        slot.next_address = (
            <uintptr_t> tensor.data if layout_bytes(layout) else self.slots.placeholder_address
        )
        if source >= 0 and slot.next_address != self.slots.at[source].next_address:
            target = self.slots.outputs[output]
            raise InputValueError(
                f"output {target} lies in the memory of input {target.aliased_input!r}; pass that tensor in "
                "out=."
            )
        if (
            not is_contiguous(&tensor)
            or slot.next_address == 0
            or (slot.next_address & (self.slots.alignment - 1) and not slot.is_shape_tensor)
        ):
            raise InputValueError(
                f"output {self.slots.outputs[output]}: out= must be contiguous and start at a multiple of "
                f"{self.slots.alignment} bytes; got {describe(value)} with strides {list(value.stride())} at "
                f"address {value.data_ptr():#x}."
            )
        if (
            is_negative(<PyObject*> value)
            or requires_grad(<PyObject*> value)
            or is_inference(<PyObject*> value)
        ):
            refuse_to_write(value, self.slots.outputs[output])
        return 0

    cdef int _refuse_subclass(self, Py_ssize_t output, object value) except -1:
        """Refuse what is not over memory of its own; a Parameter is."""
        target = self.slots.outputs[output]
        if (
            not isinstance(value, torch.Tensor)
            or as_plain_tensor(value, target).data_ptr() != value.data_ptr()
        ):
            raise InputTypeError(f"output {target}: out= needs a torch.Tensor; got {describe(value)}.")
        return 0

    cdef bint _overlaps(self, Py_ssize_t output) noexcept:
        """Whether an output's memory meets another output's or an input's, aliases by design aside."""
        cdef Py_ssize_t index
        cdef Py_ssize_t input_count = self.slots.input_count
        cdef uintptr_t begin = self.at[output].next_address
        cdef uintptr_t end = begin + layout_bytes(&self.inputs.record.outputs[output])
        cdef uintptr_t other
        cdef const TensorLayout* layout
        for index in range(self.slots.count):
            if index == input_count + output or index == self.aliased[output]:
                continue
            other = self.slots.at[index].next_address
            if index < input_count:
                layout = &self.slots.at[index].layout
            else:
                layout = &self.inputs.record.outputs[index - input_count]
            if begin < end and begin < other + layout_bytes(layout) and other < end:
                return True
        return False

    cdef object collect(self, object result):
        """Enqueue, and put the outputs that TensorRT allocates in their places."""
        cdef list allocators = self.execution.allocators
        values = list(result) if isinstance(result, (tuple, list)) else [result]
        for allocator in allocators:
            if allocator is not None:
                allocator.start()
        # TensorRT's bindings look for signals when they call an allocator, and swallow the exception.
        PyErr_CheckSignals()
        try:
            self.execution.enqueue()
            for output, allocator in enumerate(allocators):
                if allocator is not None:
                    values[self.returned.index(output)] = allocator.take()
        except BaseException as failure:
            errors = [each.error for each in allocators if each is not None and each.error]
            for allocator in allocators:
                if allocator is not None:
                    allocator.start()  # an error would keep its traceback, and that the caller's tensors
            if errors:
                raise errors[0] from failure
            raise
        return values[0] if len(values) == 1 else tuple(values)

    cdef void forget(self) noexcept:
        """Choose a set of buffers anew at the next call."""
        self.buffers = None
