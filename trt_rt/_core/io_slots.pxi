"""The I/O tensors of an engine as a call sees them: integers to compare and to set."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uintptr_t

from trt_rt._core.dlpack cimport DL_CPU, DL_CUDA, DLExchangeAPI, dtype_code, pack_device, torch_exchange_api
from trt_rt._core.tensor_layout cimport TensorLayout, layout_bytes

import torch

from trt_rt._core.dlpack import tensor_from_address

# TensorRT asks for 256 bytes of a device address (IExecutionContext::setTensorAddress). The reference
# backend on a CPU asks for 64, which is what PyTorch's CPU allocator gives.
cdef enum:
    CUDA_ALIGNMENT = 256
    CPU_ALIGNMENT = 64


cdef struct IOSlot:
    TensorLayout layout       # of the call under way; ndim is -1 while unknown
    uintptr_t address         # what the context holds; 0 while unknown
    uintptr_t next_address    # what this call binds
    bint is_dynamic           # its shape is told to TensorRT
    bint is_shape_tensor      # host memory, read by value
    bint is_data_dependent    # output: once it was -1. After a run, TensorRT may report the size of that run
    bint is_copied            # input: a copy of the caller's tensor was bound
    bint is_written           # input: an output lies in its memory: the engine writes into the caller's
    Py_ssize_t source         # output: index of the input in whose memory it lies, or -1
    int64_t* values           # shape tensor: our copy
    size_t value_capacity     # bytes at `values`


cdef inline bint overlap(const IOSlot* one, const IOSlot* other) noexcept:
    """Whether the memory that a call binds to two inputs overlaps."""
    cdef uintptr_t end = one.next_address + layout_bytes(&one.layout)
    cdef uintptr_t other_end = other.next_address + layout_bytes(&other.layout)
    return (
        one.next_address < other_end
        and other.next_address < end
        and one.next_address < end
        and other.next_address < other_end
    )


@cython.final
@cython.no_gc_clear
cdef class SlotTable:
    """One `IOSlot` for each input, then one for each output, and what is needed to check a tensor for it.

    Parameters
    ----------
    inputs, outputs : tuple of IOTensor
        In the order of a call's arguments and results.
    device : torch.device
        Where device tensors live.
    returns_aliases : bool
        Whether calls return outputs that lie in an input's memory.
    """

    cdef tuple inputs
    cdef tuple outputs
    cdef object device
    cdef Py_ssize_t input_count
    cdef Py_ssize_t output_count
    cdef Py_ssize_t count
    cdef IOSlot* at
    cdef bint has_aliases        # the engine writes into some input
    cdef list returned           # indexes of the outputs that calls return

    cdef const DLExchangeAPI* api
    cdef PyTypeObject* tensor_type
    cdef uintptr_t alignment     # of a device address
    cdef object placeholder      # memory that empty tensors are bound to
    cdef uintptr_t placeholder_address

    def __cinit__(self, tuple inputs not None, tuple outputs not None, device, bint returns_aliases):
        cdef Py_ssize_t index
        self.api = torch_exchange_api()
        self.tensor_type = <PyTypeObject*> torch.Tensor
        self.inputs = inputs
        self.outputs = outputs
        self.device = device
        self.input_count = len(inputs)
        self.output_count = len(outputs)
        self.count = self.input_count + self.output_count
        self.alignment = CUDA_ALIGNMENT if device.type == "cuda" else CPU_ALIGNMENT
        self.placeholder = torch.empty(self.alignment, dtype=torch.uint8, device=device)
        self.placeholder_address = self.placeholder.data_ptr()
        self.at = <IOSlot*> PyMem_Calloc(max(self.count, 1), sizeof(IOSlot))
        if self.at == NULL:
            raise MemoryError()
        for index, tensor in enumerate((*inputs, *outputs)):
            self._describe(&self.at[index], tensor)
        self.returned = [
            output
            for output in range(self.output_count)
            if returns_aliases or self.at[self.input_count + output].source < 0
        ]

    def __dealloc__(self):
        cdef Py_ssize_t index
        if self.at != NULL:
            for index in range(self.input_count):
                PyMem_Free(self.at[index].values)
        PyMem_Free(self.at)

    cdef int _describe(self, IOSlot* slot, tensor) except -1:
        slot.layout.dtype = dtype_code(tensor.dtype)
        slot.layout.ndim = -1
        slot.is_shape_tensor = tensor.is_shape_tensor
        slot.is_dynamic = tensor.is_dynamic
        slot.source = -1
        if tensor.aliased_input is not None:
            slot.source = [each.name for each in self.inputs].index(tensor.aliased_input)
            self.at[slot.source].is_written = True
            self.has_aliases = True
        if self.device.type == "cuda" and not tensor.is_shape_tensor:
            slot.layout.device = pack_device(DL_CUDA, self.device.index or 0)
        else:
            slot.layout.device = pack_device(DL_CPU, 0)
        return 0

    cdef tuple shape_of(self, Py_ssize_t index):
        """The shape of an input in this call."""
        cdef IOSlot* slot = &self.at[index]
        cdef Py_ssize_t dimension
        return tuple([slot.layout.shape[dimension] for dimension in range(slot.layout.ndim)])

    cdef int reserve_values(self, IOSlot* slot, size_t size) except -1:
        """Make room for `size` bytes of a shape tensor's values."""
        cdef void* grown
        if size <= slot.value_capacity and slot.values != NULL:
            return 0
        grown = PyMem_Realloc(slot.values, max(size, sizeof(int64_t)))
        if grown == NULL:
            raise MemoryError()
        slot.values = <int64_t*> grown
        slot.value_capacity = size
        slot.layout.ndim = -1
        return 0

    cdef object values_tensor(self, Py_ssize_t index):
        """A tensor over our copy of a shape tensor's values."""
        return tensor_from_address(
            <uintptr_t> self.at[index].values,
            self.shape_of(index),
            self.inputs[index].dtype,
            torch.device("cpu"),
        )

    cdef void forget_copies(self) noexcept:
        """Take no argument for copied any more."""
        cdef Py_ssize_t index
        for index in range(self.input_count):
            self.at[index].is_copied = False

    cdef void forget(self) noexcept:
        """Take no address for bound and no shape for checked any more."""
        cdef Py_ssize_t index
        for index in range(self.count):
            self.at[index].address = 0
            if index < self.input_count:
                self.at[index].layout.ndim = -1
