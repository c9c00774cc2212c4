"""Binds the outputs of a call: fresh, pre-allocated, the caller's, or those that TensorRT allocates."""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.dlpack cimport DLTensor, pack_device
from trt_rt._core.python_objects cimport items, list_item, raise_pending

import torch

from trt_rt._core.allocation import empty_function
from trt_rt.errors import ExecutionError


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
    """

    cdef ExecutionContext execution
    cdef InputBinding inputs
    cdef SlotTable slots
    cdef IOSlot* at              # of the outputs
    cdef Py_ssize_t count
    cdef CallersOutputs callers
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
    ):
        self.slots = slots
        self.execution = execution
        self.inputs = inputs
        self.at = &slots.at[slots.input_count]
        self.count = slots.output_count
        self.allocate = empty_function(slots.device)
        self.allocate_on_host = empty_function(torch.device("cpu"))
        self.callers = CallersOutputs(slots, inputs, execution.engine_name)
        self._choose_policy()

    cdef int use_buffers(self, Py_ssize_t count) except -1:
        """Reuse `count` sets of outputs in turn from now on; 0 for fresh outputs."""
        self.ring_size = count
        self._choose_policy()
        self.ring_generation += 1
        self.inputs.records.drop_buffers()
        return 0

    cdef void _choose_policy(self) noexcept:
        if len(self.slots.returned) < self.count:
            self.policy = FRESH_WITH_HIDDEN_ALIASES
        elif self.ring_size != 0 and not self.slots.has_aliases:
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
        returned = tuple([values[output] for output in self.slots.returned])
        return returned[0] if len(returned) == 1 else returned

    cdef object _fresh_output(self, PyObject** args, Py_ssize_t output, bint is_copied):
        cdef DLTensor tensor
        cdef IOSlot* slot = &self.at[output]
        if slot.source >= 0:
            return self._aliased_output(args, output)
        if list_item(<PyObject*> self.inputs.record.allocations, output) == <PyObject*> None:
            return None  # TensorRT allocates it
        value = self.allocate_output(output, &tensor)
        slot.next_address = <uintptr_t> tensor.data if tensor.data != NULL else self.slots.placeholder_address
        if is_copied:
            slot.address = slot.next_address  # so that another address makes no graph stale
        elif slot.next_address != slot.address:
            self.execution.use_address(self.slots.input_count + output)
        return value

    cdef object allocate_output(self, Py_ssize_t output, DLTensor* tensor):
        """Return a new tensor, and put its description into `tensor`."""
        cdef PyObject* arguments = list_item(<PyObject*> self.inputs.record.allocations, output)
        cdef PyObject* allocate = <PyObject*> self.allocate
        cdef PyObject* allocated
        if self.at[output].is_shape_tensor:
            allocate = <PyObject*> self.allocate_on_host
        allocated = new_tensor(allocate, arguments, self.slots.api, tensor)
        if allocated == NULL:
            self._fail_allocation(output)
        value = <object> allocated
        Py_DECREF(value)  # `value` holds its own reference
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
        cdef IOSlot* slot = &self.at[output]
        slot.next_address = self.slots.at[slot.source].next_address
        if slot.next_address != slot.address:
            self.execution.use_address(self.slots.input_count + output)
        mark_overwritten(args[slot.source])
        return <object> args[slot.source]

    cdef object bind_preallocated(self):
        """Bind the next set of the ring. A view that the caller has altered in place is made anew."""
        cdef Py_ssize_t output
        cdef IOSlot* slot
        cdef OutputBuffers buffers = self.buffers
        for output in range(self.count):
            slot = &self.at[output]
            buffers.reuse_view(output, self.slots.api)
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
        cdef tuple given = self.callers.listed(out)
        cdef tuple values = self.callers.take(args, given)
        for output in range(self.count):
            mark_overwritten(items(values)[output])
            if self.at[output].source >= 0:
                mark_overwritten(args[self.at[output].source])
            if self.at[output].next_address != self.at[output].address:
                self.execution.use_address(self.slots.input_count + output)
        if type(out) is list or (len(given) == 1 and items(given)[0] == <PyObject*> out):
            return out
        return given

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
                    values[self.slots.returned.index(output)] = allocator.take()
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
