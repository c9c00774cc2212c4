"""Takes the arguments of a call: compares each with what is bound, and finds what their shapes lead to.

It works in two phases, so that a refused argument leaves the context untouched: every argument is read and
checked, then shapes and addresses that differ are told to TensorRT.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

from trt_rt._core.dlpack cimport MAX_DIMS, DLTensor, element_count, read_plain_tensor, read_tensor
from trt_rt._core.tensor_layout cimport (
    copy_shape,
    is_bindable_as,
    is_contiguous,
    layout_bytes,
    same_kind,
    same_shape,
)

import torch

from trt_rt._core.arguments import as_kind_of, as_plain_tensor, contiguous_copy
from trt_rt._core.observed import unobserved
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt._core.profile_choice import choose_profile
from trt_rt._core.refused_tensors import describe, refuse_kind
from trt_rt.errors import ExecutionError, InputValueError


@cython.final
@cython.no_gc_clear
cdef class InputBinding:
    """The arguments of the calls of one executor, and the records of the shapes that they came with.

    Parameters
    ----------
    slots : SlotTable
        What arguments are compared with.
    execution : ExecutionContext
        What is told of shapes and addresses.
    max_shapes : int
        How many sets of input shapes are remembered.
    allocate_all : bool
        TensorRT allocates every output.
    move_input : callable or None
        Moves arguments that are on another device; see `Executor`.
    """

    cdef ExecutionContext execution
    cdef SlotTable slots
    cdef ShapeCache records
    cdef ShapeRecord record      # of the last call's shapes; the context's too, unless binding is deferred
    cdef bint shapes_changed     # since the last call
    cdef bint addresses_changed  # since the last call
    cdef int forced_profile      # the one optimization profile that may be used, or -1
    cdef bint allocate_all
    cdef object move_input
    cdef object copy_contiguously
    cdef list temporaries        # copies of arguments; PyTorch reuses their memory in stream order
    cdef int64_t* key
    cdef Py_ssize_t key_capacity
    cdef uint64_t shape_changes  # how often a call had other shapes than the one before
    cdef uint64_t careful_reads  # how many arguments took the slower route

    def __cinit__(
        self,
        SlotTable slots not None,
        ExecutionContext execution not None,
        Py_ssize_t max_shapes,
        bint allocate_all,
        move_input,
    ):
        self.slots = slots
        self.execution = execution
        self.records = ShapeCache(max_shapes)
        self.forced_profile = -1
        self.allocate_all = allocate_all
        self.move_input = move_input
        self.copy_contiguously = contiguous_copy
        self.temporaries = []

    def __dealloc__(self):
        PyMem_Free(self.key)

    cdef inline int take(self, PyObject** args, Py_ssize_t count) except -1:
        """Read and check the arguments, then tell TensorRT what differs from what it holds."""
        cdef Py_ssize_t index
        self.shapes_changed = self.record is None
        self.addresses_changed = self.shapes_changed
        for index in range(count):
            self._take_one(index, args[index])
        if self.slots.has_aliases:
            self._check_state(args)
        if self.shapes_changed:
            self._find_record()
        if self.addresses_changed:
            for index in range(count):
                if self.slots.at[index].next_address != self.slots.at[index].address:
                    self.execution.use_address(index)
        return 0

    cdef inline int _take_one(self, Py_ssize_t index, PyObject* value) except -1:
        cdef IOSlot* slot = &self.slots.at[index]
        cdef DLTensor tensor
        if not read_plain_tensor(self.slots.api, self.slots.tensor_type, value, &tensor):
            return self._take_carefully(index, value)
        if (
            <uintptr_t> tensor.data == slot.address
            and is_bindable_as(&tensor, &slot.layout)
            and not is_negative(value)
        ):
            return 0  # next_address is still the address
        return self._take_decoded(index, value, &tensor)

    cdef int _take_decoded(self, Py_ssize_t index, PyObject* value, const DLTensor* tensor) except -1:
        """Take a tensor at another address, or of another shape."""
        cdef IOSlot* slot = &self.slots.at[index]
        cdef uintptr_t address = <uintptr_t> tensor.data
        cdef bint is_empty = element_count(tensor) == 0
        if (
            not same_kind(&slot.layout, tensor)
            or not is_contiguous(tensor)
            or is_negative(value)
        ):
            return self._take_carefully(index, value)
        if tensor.ndim > MAX_DIMS or (address == 0 and not is_empty):
            refuse_kind(<object> value, self.slots.inputs[index], self.slots.device)
        if slot.is_shape_tensor:
            return self._take_values(index, tensor)
        if is_empty:
            address = self.slots.placeholder_address
        elif address & (self.slots.alignment - 1):
            return self._take_carefully(index, value)
        if not same_shape(&slot.layout, tensor):
            copy_shape(&slot.layout, tensor)
            self.shapes_changed = True
        slot.next_address = address
        self.addresses_changed = True
        return 0

    cdef int _take_carefully(self, Py_ssize_t index, PyObject* value) except -1:
        """Make a plain, contiguous, aligned tensor of the argument, by a copy where necessary."""
        cdef IOSlot* slot = &self.slots.at[index]
        cdef DLTensor tensor
        cdef uintptr_t alignment = self.slots.alignment
        self.careful_reads += 1
        target = self.slots.inputs[index]
        plain = as_plain_tensor(<object> value, target)
        if not read_tensor(self.slots.api, <PyObject*> plain, &tensor):
            refuse_kind(plain, target, self.slots.device)
        if not same_kind(&slot.layout, &tensor):
            plain = as_kind_of(plain, target, self.slots.device, self.move_input)
            if (
                not read_tensor(self.slots.api, <PyObject*> plain, &tensor)
                or not same_kind(&slot.layout, &tensor)
            ):
                refuse_kind(plain, target, self.slots.device)
        if tensor.ndim > MAX_DIMS:
            refuse_kind(plain, target, self.slots.device)
        if not is_contiguous(&tensor) or (
            <uintptr_t> tensor.data & (alignment - 1) and not slot.is_shape_tensor
        ):
            # On the caller's stream; the copy's memory is reused in that stream's order.
            plain = self.copy_contiguously(plain, target)
            if not read_tensor(self.slots.api, <PyObject*> plain, &tensor):
                refuse_kind(plain, target, self.slots.device)
        if slot.is_written and not _is_same_memory(plain, <object> value):
            raise InputValueError(
                f"input {target}: the engine writes into it, so it must be a torch.Tensor, contiguous, and "
                f"start at a multiple of {alignment} bytes; got {describe(<object> value)}, of which "
                "only a copy would do, and the copy would swallow the write."
            )
        self.temporaries.append(plain)
        self._take_decoded(index, <PyObject*> plain, &tensor)
        slot.is_copied = plain is not <object> value
        return 0

    cdef int observe(self, observer) except -1:
        """Let an observer see the copies of arguments; None: nobody any more. Idempotent."""
        copy_contiguously = contiguous_copy
        move_input = unobserved(self.move_input)
        if observer is not None:
            copy_contiguously = observer.copies(copy_contiguously)
            move_input = None if move_input is None else observer.moves(move_input)
        self.copy_contiguously = copy_contiguously
        self.move_input = move_input
        return 0

    cdef int _check_state(self, PyObject** args) except -1:
        """Refuse inputs that the engine must not write into, or that share memory with what it writes."""
        cdef Py_ssize_t index, other
        cdef IOSlot* slot
        for index in range(self.slots.input_count):
            slot = &self.slots.at[index]
            if not slot.is_written:
                continue
            if is_inference(args[index]) and not torch.is_inference_mode_enabled():
                raise InputValueError(
                    f"input {self.slots.inputs[index]}: the engine writes into it, and an inference tensor "
                    "can be written in inference mode only. Pass a clone of it, or call under "
                    "torch.inference_mode()."
                )
            for other in range(self.slots.input_count):
                if other != index and overlap(slot, &self.slots.at[other]):
                    raise InputValueError(
                        f"input {self.slots.inputs[index]}: the engine writes into it, and its memory "
                        f"overlaps that of input {self.slots.inputs[other]}, which the engine may read "
                        "afterwards. Pass memory of its own."
                    )
        return 0

    cdef int _take_values(self, Py_ssize_t index, const DLTensor* tensor) except -1:
        """Copy a shape tensor's values to memory of ours, which lives until TensorRT has read them."""
        cdef IOSlot* slot = &self.slots.at[index]
        cdef size_t size = element_count(tensor) * (tensor.dtype.bits >> 3)
        self.slots.reserve_values(slot, size)
        if not same_shape(&slot.layout, tensor) or memcmp(slot.values, tensor.data, size) != 0:
            memcpy(slot.values, tensor.data, size)
            copy_shape(&slot.layout, tensor)
            self.shapes_changed = True
        slot.next_address = <uintptr_t> slot.values
        self.addresses_changed = True
        return 0

    cdef int _find_record(self) except -1:
        """Find what follows from the shapes and values in the slots, and set the context up for it."""
        cdef Py_ssize_t length = self._build_key()
        cdef ShapeRecord record
        self.shape_changes += 1
        # Until it is certain what the context is set up for, it is unknown: a failure below leaves it so.
        self.record = None
        record = self.records.find(self.key, length)
        if record is None:
            with plain_pytorch():
                record = self._derive(length)
            self.records.insert(record)
        elif not self.execution.defers_binding:
            self.execution.set_up(record)
        self.record = record
        return 0

    cdef Py_ssize_t _build_key(self) except -1:
        """Per input: rank and dimensions, and for a shape tensor its values. Outputs follow from these."""
        cdef Py_ssize_t length = 0
        cdef Py_ssize_t index
        cdef Py_ssize_t needed = 0
        cdef size_t size
        cdef IOSlot* slot
        cdef void* grown
        for index in range(self.slots.input_count):
            needed += 1 + MAX_DIMS + self.slots.at[index].value_capacity // sizeof(int64_t) + 1
        if needed > self.key_capacity:
            grown = PyMem_Realloc(self.key, needed * sizeof(int64_t))
            if grown == NULL:
                raise MemoryError()
            self.key = <int64_t*> grown
            self.key_capacity = needed
        for index in range(self.slots.input_count):
            slot = &self.slots.at[index]
            self.key[length] = slot.layout.ndim
            memcpy(&self.key[length + 1], slot.layout.shape, slot.layout.ndim * sizeof(int64_t))
            length += 1 + slot.layout.ndim
            if slot.is_shape_tensor:
                size = layout_bytes(&slot.layout)
                self.key[length + size // sizeof(int64_t)] = 0  # the rest of a last word half filled
                memcpy(&self.key[length], slot.values, size)
                length += (size + sizeof(int64_t) - 1) // sizeof(int64_t)
        return length

    cdef int use_record(self, ShapeRecord record) except -1:
        """Return to earlier shapes, as a call with inputs of these shapes would."""
        self.recall(record)
        self.execution.set_up(record)
        self.record = record
        return 0

    cdef int recall(self, ShapeRecord record) except -1:
        """Put a record's shapes and values into the slots, but tell the context nothing."""
        cdef Py_ssize_t index
        cdef Py_ssize_t position = 0
        cdef size_t size
        cdef IOSlot* slot
        self.record = None
        for index in range(self.slots.input_count):
            slot = &self.slots.at[index]
            slot.layout.ndim = <int> record.key[position]
            memcpy(slot.layout.shape, &record.key[position + 1], slot.layout.ndim * sizeof(int64_t))
            position += 1 + slot.layout.ndim
            if slot.is_shape_tensor:
                size = layout_bytes(&slot.layout)
                memcpy(slot.values, &record.key[position], size)
                slot.next_address = <uintptr_t> slot.values
                position += (size + sizeof(int64_t) - 1) // sizeof(int64_t)
        return 0

    cdef ShapeRecord _derive(self, Py_ssize_t key_length):
        """Ask TensorRT what follows from the inputs' shapes and values."""
        cdef Py_ssize_t index
        cdef ExecutionContext execution = self.execution
        cdef ShapeRecord record = ShapeRecord(key_length, self.slots.input_count, self.slots.output_count)
        shapes = tuple([self.slots.shape_of(index) for index in range(self.slots.input_count)])
        values = [self._values_of(index) for index in range(self.slots.input_count)]
        record.input_shapes = shapes
        record.profile = choose_profile(
            self.slots.inputs, shapes, values, max(execution.profile, 0), self.forced_profile
        )
        execution.use_shapes(shapes, record.profile)
        execution.tell_shape_values()
        try:
            missing = execution.context.infer_shapes()
        except RuntimeError as error:
            raise ExecutionError(f"engine {execution.engine_name!r}: {error}") from error
        if missing:
            execution.fail(f"infer_shapes(), which lacks {list(missing)},")
        execution.use_workspace()
        record.allocations = [None] * self.slots.output_count
        for index in range(self.slots.output_count):
            self._derive_output(record, index)
        execution.use_allocators(record)
        record.set_key(self.key)
        return record

    cdef object _values_of(self, Py_ssize_t index):
        """A shape tensor's values in this call; None for another input."""
        if not self.slots.at[index].is_shape_tensor:
            return None
        if layout_bytes(&self.slots.at[index].layout) == 0:
            return ()
        return tuple(self.slots.values_tensor(index).flatten().tolist())

    cdef int _derive_output(self, ShapeRecord record, Py_ssize_t output) except -1:
        cdef Py_ssize_t dimension
        cdef IOSlot* slot = &self.slots.at[self.slots.input_count + output]
        tensor = self.slots.outputs[output]
        # While PyTorch traces, sizes come out as tensors.
        shape = tuple([int(size) for size in self.execution.context.get_tensor_shape(tensor.name)])
        record.outputs[output] = slot.layout
        slot.is_data_dependent |= -1 in shape
        if (
            (slot.is_data_dependent or self.allocate_all)
            and tensor.aliased_input is None
            and not tensor.is_shape_tensor
        ):
            record.is_data_dependent = True
            return 0
        if len(shape) > MAX_DIMS or -1 in shape:
            self.execution.fail(
                f"get_tensor_shape({tensor.name!r}) gave {list(shape)} once all inputs were known, and"
            )
        record.outputs[output].ndim = <int> len(shape)
        strides = []
        stride = 1
        for dimension in range(len(shape) - 1, -1, -1):
            record.outputs[output].shape[dimension] = shape[dimension]
            strides.insert(0, stride)
            stride *= max(shape[dimension], 1)
        if tensor.aliased_input is not None:
            self._check_alias(record, tensor, shape)
        else:
            record.allocations[output] = (shape, tuple(strides), tensor.dtype)
        return 0

    cdef int _check_alias(self, ShapeRecord record, tensor, tuple shape) except -1:
        """Refuse an output that is larger or smaller than the input in whose memory it is to lie."""
        names = [each.name for each in self.slots.inputs]
        found = record.input_shapes[names.index(tensor.aliased_input)]
        if shape != found:
            raise InputValueError(
                f"output {tensor} has shape {list(shape)} here, and cannot lie in the memory of input "
                f"{tensor.aliased_input!r}, which has shape {list(found)}."
            )
        return 0

    cdef void forget(self) noexcept:
        """Take the shapes of the next call for new."""
        self.record = None


def _is_same_memory(plain, value):
    return isinstance(value, torch.Tensor) and plain.data_ptr() == value.data_ptr()
