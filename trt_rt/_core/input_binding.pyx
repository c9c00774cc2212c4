# cython: boundscheck=False, wraparound=False
"""Takes the arguments of a call: compares each with what is bound, and finds what their shapes lead to.

Two phases, so that a refused argument leaves the context untouched: every argument is read and checked,
then shapes and addresses that differ are told to TensorRT.
"""

cimport cython
from cpython.exc cimport PyErr_Clear
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcmp, memcpy

from trt_rt._core.bound_context cimport BoundContext, is_last
from trt_rt._core.dlpack cimport MAX_DIMS, DLTensor, element_count
from trt_rt._core.io_slot cimport (
    IOSlot,
    copy_shape,
    is_bindable_as,
    is_contiguous,
    layout_bytes,
    same_kind,
    same_shape,
)
from trt_rt._core.shape_record cimport ShapeCache, ShapeRecord

import torch

from trt_rt._core.arguments import (
    as_plain_tensor,
    choose_profile,
    contiguous_copy,
    describe,
    refuse_kind,
)
from trt_rt._core.dlpack import tensor_from_address
from trt_rt.errors import ExecutionError, InputValueError

cdef extern from "Python.h":
    PyObject* Py_True
    PyObject* PyObject_Vectorcall(object, PyObject* const*, size_t, PyObject*) except NULL

# TensorRT asks for 256 bytes of a device address (IExecutionContext::setTensorAddress). The reference
# backend on a CPU asks for 64, which is what PyTorch's CPU allocator gives.
cdef uintptr_t CUDA_ALIGNMENT = 256
cdef uintptr_t CPU_ALIGNMENT = 64


cdef class InputBinding(BoundContext):
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
        max_shapes,
    ):
        BoundContext.__init__(
            self, contexts, inputs, outputs, device=device, name=name, take_error=take_error
        )
        self.tensor_type = <PyTypeObject*> torch.Tensor
        self.is_neg = torch.Tensor.is_neg
        self.alignment = CUDA_ALIGNMENT if self.on_cuda else CPU_ALIGNMENT
        self.placeholder = torch.empty(self.alignment, dtype=torch.uint8, device=device)
        self.placeholder_address = self.placeholder.data_ptr()
        self.records = ShapeCache(max_shapes)
        self.new_allocator = new_allocator
        self.forced_profile = -1

    def __dealloc__(self):
        PyMem_Free(self.key)

    cdef int take_inputs(self, PyObject** args, Py_ssize_t count) except -1:
        """Read and check the arguments, then tell TensorRT what differs from what it holds."""
        cdef Py_ssize_t index
        self.shapes_changed = self.record is None
        self.addresses_changed = self.shapes_changed
        for index in range(count):
            self._take_input(index, args[index])
        if self.shapes_changed:
            self._find_record()
        if self.addresses_changed:
            for index in range(count):
                if self.slots[index].next_address != self.slots[index].address:
                    self.bind_address(index)
        return 0

    @cython.final
    cdef int _take_input(self, Py_ssize_t index, PyObject* value) except -1:
        cdef IOSlot* slot = &self.slots[index]
        cdef DLTensor tensor
        if value.ob_type != self.tensor_type:
            return self._take_carefully(index, value)
        if self.api.dltensor_from_py_object_no_sync(value, &tensor) != 0:
            PyErr_Clear()
            return self._take_carefully(index, value)
        if (
            <uintptr_t> tensor.data == slot.address
            and is_last(slot, value)
            and not slot.may_be_negative
            and is_bindable_as(&tensor, &slot.layout)
        ):
            return 0  # next_address is still the address
        return self._take_decoded(index, value, &tensor)

    @cython.final
    cdef int _take_decoded(self, Py_ssize_t index, PyObject* value, const DLTensor* tensor) except -1:
        """A tensor that is new here: another object, another address, or another shape."""
        cdef IOSlot* slot = &self.slots[index]
        cdef uintptr_t address = <uintptr_t> tensor.data
        cdef bint is_empty = element_count(tensor) == 0
        if (
            not same_kind(&slot.layout, tensor)
            or tensor.ndim > MAX_DIMS
            or (address == 0 and not is_empty)
        ):
            refuse_kind(<object> value, self.inputs[index], self.device)
        if not is_contiguous(tensor) or self.is_negative(value):
            return self._take_carefully(index, value)
        if slot.is_shape_tensor:
            return self._take_values(index, tensor)
        if is_empty:
            address = self.placeholder_address
        elif address & (self.alignment - 1):
            return self._take_carefully(index, value)
        if not same_shape(&slot.layout, tensor):
            copy_shape(&slot.layout, tensor)
            self.shapes_changed = True
        slot.may_be_negative = element_count(tensor) == 1
        slot.next_address = address
        if not is_last(slot, value):
            self.remember(index, value)
        self.addresses_changed = True
        return 0

    @cython.final
    cdef int _take_carefully(self, Py_ssize_t index, PyObject* value) except -1:
        """Make a plain, contiguous, aligned tensor of the argument; a copy if need be."""
        cdef IOSlot* slot = &self.slots[index]
        cdef DLTensor tensor
        self.careful_reads += 1
        target = self.inputs[index]
        plain = as_plain_tensor(<object> value, target)
        if self.api.dltensor_from_py_object_no_sync(<PyObject*> plain, &tensor) != 0:
            PyErr_Clear()
            refuse_kind(plain, target, self.device)
        if not same_kind(&slot.layout, &tensor):
            refuse_kind(plain, target, self.device)
        if not is_contiguous(&tensor) or (
            <uintptr_t> tensor.data & (self.alignment - 1) and not slot.is_shape_tensor
        ):
            # On the caller's stream; the copy's memory is reused in that stream's order.
            plain = contiguous_copy(plain, target)
            if self.api.dltensor_from_py_object_no_sync(<PyObject*> plain, &tensor) != 0:
                PyErr_Clear()
                refuse_kind(plain, target, self.device)
        if slot.is_written and not _is_same_memory(plain, <object> value):
            raise InputValueError(
                f"input {target}: the engine writes into it, so it must be a torch.Tensor, contiguous, and "
                f"start at a multiple of {self.alignment} bytes; got {describe(<object> value)}, of which "
                "only a copy would do, and the copy would swallow the write."
            )
        self.temporaries.append(plain)
        self._take_decoded(index, <PyObject*> plain, &tensor)
        if plain is not <object> value:
            slot.last_object = NULL  # the temporary goes, and another object may come to lie at its address
        return 0

    @cython.final
    cdef int _take_values(self, Py_ssize_t index, const DLTensor* tensor) except -1:
        """Copy a shape tensor's values to memory of ours, which lives until TensorRT has read them."""
        cdef IOSlot* slot = &self.slots[index]
        cdef size_t count = element_count(tensor)
        cdef size_t size = count * (tensor.dtype.bits >> 3)
        cdef void* grown
        if size > slot.value_capacity or slot.values == NULL:
            grown = PyMem_Realloc(slot.values, max(size, sizeof(int64_t)))
            if grown == NULL:
                raise MemoryError()
            slot.values = <int64_t*> grown
            slot.value_capacity = size
            slot.layout.ndim = -1
        if not same_shape(&slot.layout, tensor) or memcmp(slot.values, tensor.data, size) != 0:
            memcpy(slot.values, tensor.data, size)
            copy_shape(&slot.layout, tensor)
            self.shapes_changed = True
        slot.next_address = <uintptr_t> slot.values
        self.addresses_changed = True
        return 0

    cdef bint is_negative(self, PyObject* value) except -1:
        """Whether the tensor is a view whose elements are still to be negated; DLPack does not tell."""
        cdef PyObject* stack[1]
        cdef PyObject* result
        stack[0] = value
        result = PyObject_Vectorcall(self.is_neg, stack, 1, NULL)
        Py_DECREF(<object> result)
        return result == Py_True

    @cython.final
    cdef int _find_record(self) except -1:
        cdef Py_ssize_t length = self._build_key()
        cdef ShapeRecord record
        self.shape_changes += 1
        # Until it is certain what the context is set up for, it is unknown: a failure below leaves it so.
        self.record = None
        record = self.records.find(self.key, length)
        if record is None:
            record = self._derive(length)
            self.records.insert(record)
        elif not self.defers_binding:
            self.use_shapes(record.input_shapes, record.profile)
            self._use_allocators(record)
            self.use_workspace()
        self.record = record
        return 0

    cdef void forget(self) noexcept:
        self.record = None
        BoundContext.forget(self)

    @cython.final
    cdef Py_ssize_t _build_key(self) except -1:
        """Per input: rank and dimensions, and for a shape tensor its values; all that outputs follow from."""
        cdef Py_ssize_t length = 0
        cdef Py_ssize_t index
        cdef Py_ssize_t needed = 0
        cdef size_t size
        cdef IOSlot* slot
        cdef void* grown
        for index in range(self.input_count):
            needed += 1 + MAX_DIMS + self.slots[index].value_capacity // sizeof(int64_t) + 1
        if needed > self.key_capacity:
            grown = PyMem_Realloc(self.key, needed * sizeof(int64_t))
            if grown == NULL:
                raise MemoryError()
            self.key = <int64_t*> grown
            self.key_capacity = needed
        for index in range(self.input_count):
            slot = &self.slots[index]
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
        """Return to shapes of before, as a call with inputs of these shapes would."""
        self.recall(record)
        self.use_shapes(record.input_shapes, record.profile)
        self._use_allocators(record)
        self.use_workspace()
        self.record = record
        return 0

    cdef int recall(self, ShapeRecord record) except -1:
        """Put a record's shapes and values into the slots; what the context holds is another matter."""
        cdef Py_ssize_t index
        cdef Py_ssize_t position = 0
        cdef size_t size
        cdef IOSlot* slot
        self.record = None
        for index in range(self.input_count):
            slot = &self.slots[index]
            slot.layout.ndim = <int> record.key[position]
            memcpy(slot.layout.shape, &record.key[position + 1], slot.layout.ndim * sizeof(int64_t))
            position += 1 + slot.layout.ndim
            if slot.is_shape_tensor:
                size = layout_bytes(&slot.layout)
                memcpy(slot.values, &record.key[position], size)
                position += (size + sizeof(int64_t) - 1) // sizeof(int64_t)
        return 0

    @cython.final
    cdef ShapeRecord _derive(self, Py_ssize_t key_length):
        """Ask TensorRT what follows from the inputs' shapes and values."""
        cdef Py_ssize_t index
        cdef IOSlot* slot
        cdef ShapeRecord record = ShapeRecord(key_length, self.input_count, self.output_count)
        shapes = tuple([self._shape_of(index) for index in range(self.input_count)])
        values = [self._values_of(index) for index in range(self.input_count)]
        record.input_shapes = shapes
        record.profile = choose_profile(
            self.inputs, shapes, values, max(self.profile, 0), self.forced_profile
        )
        self.use_shapes(shapes, record.profile)
        for index in range(self.input_count):
            slot = &self.slots[index]
            if slot.is_shape_tensor:
                self.tell_address(index)
        try:
            missing = self.context.infer_shapes()
        except RuntimeError as error:
            raise ExecutionError(f"engine {self.name!r}: {error}") from error
        if missing:
            self.fail(f"infer_shapes(), which lacks {list(missing)},")
        self.use_workspace()
        record.allocations = [None] * self.output_count
        for index in range(self.output_count):
            self._derive_output(record, index)
        self._use_allocators(record)
        record.set_key(self.key)
        return record

    def _shape_of(self, Py_ssize_t index):
        cdef IOSlot* slot = &self.slots[index]
        cdef Py_ssize_t dimension
        return tuple([slot.layout.shape[dimension] for dimension in range(slot.layout.ndim)])

    def _values_of(self, Py_ssize_t index):
        cdef IOSlot* slot = &self.slots[index]
        if not slot.is_shape_tensor:
            return None
        shape = self._shape_of(index)
        if layout_bytes(&slot.layout) == 0:
            return ()
        dtype = self.inputs[index].dtype
        held = tensor_from_address(<uintptr_t> slot.values, shape, dtype, torch.device("cpu"))
        return tuple(held.flatten().tolist())

    @cython.final
    cdef int _derive_output(self, ShapeRecord record, Py_ssize_t output) except -1:
        cdef Py_ssize_t dimension
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        tensor = self.outputs[output]
        # While PyTorch traces, sizes come out as tensors.
        shape = tuple([int(size) for size in self.context.get_tensor_shape(tensor.name)])
        record.outputs[output] = slot.layout
        if (-1 in shape or self.allocate_all) and tensor.aliased_input is None and not tensor.is_shape_tensor:
            record.is_data_dependent = True
            return 0
        if len(shape) > MAX_DIMS or -1 in shape:
            self.fail(f"get_tensor_shape({tensor.name!r}) gave {list(shape)} once all inputs were known, and")
        record.outputs[output].ndim = <int> len(shape)
        strides = []
        stride = 1
        for dimension in range(len(shape) - 1, -1, -1):
            record.outputs[output].shape[dimension] = shape[dimension]
            strides.insert(0, stride)
            stride *= max(shape[dimension], 1)
        if tensor.aliased_input is None:
            record.allocations[output] = (shape, tuple(strides), tensor.dtype)
        return 0

    cdef int _use_allocators(self, ShapeRecord record) except -1:
        """Let TensorRT allocate the outputs that it must, and no others.

        A context keeps an allocator until it is unset, and then writes nowhere else.
        """
        cdef Py_ssize_t output
        for output in range(self.output_count):
            if (record.outputs[output].ndim < 0) != (self.allocators[output] is not None):
                self._switch_allocator(output)
        return 0

    def _switch_allocator(self, Py_ssize_t output):
        name = self.outputs[output].name
        allocator = None
        if self.allocators[output] is None:
            allocator = self.new_allocator(self.outputs[output], self.device)
        if self.context.set_output_allocator(name, allocator) is not True:
            self.fail(f"set_output_allocator({name!r})")
        self.allocators[output] = allocator


def _is_same_memory(plain, value):
    return isinstance(value, torch.Tensor) and plain.data_ptr() == value.data_ptr()
