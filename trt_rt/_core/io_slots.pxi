"""The I/O tensors of an engine as a call sees them: integers to compare and to set."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.weakref cimport PyWeakref_NewRef
from libc.stdint cimport int64_t, uintptr_t

from trt_rt._core.dlpack cimport DL_CPU, DL_CUDA, DLExchangeAPI, dtype_code, pack_device, torch_exchange_api
from trt_rt._core.python_objects cimport referent, returns_true
from trt_rt._core.tensor_layout cimport TensorLayout

import torch

from trt_rt._core.dlpack import tensor_from_address

# TensorRT asks for 256 bytes of a device address (IExecutionContext::setTensorAddress). The reference
# backend on a CPU asks for 64, which is what PyTorch's CPU allocator gives.
cdef enum:
    CUDA_ALIGNMENT = 256
    CPU_ALIGNMENT = 64


class _Nothing:
    """Placeholder for a weak reference whose target is gone."""


cdef object _GONE = PyWeakref_NewRef(_Nothing(), None)  # no tensor is its referent


cdef struct IOSlot:
    TensorLayout layout       # of the call under way; ndim is -1 while unknown
    uintptr_t address         # what the context holds; 0 while unknown
    uintptr_t next_address    # what this call binds
    PyObject* last_object     # identity of the tensor last checked; borrowed, never dereferenced
    PyObject* last_reference  # weak, to the same: a new tensor can be created where a freed one was
    bint is_dynamic           # its shape is told to TensorRT
    bint is_shape_tensor      # host memory, read by value
    bint may_be_negative      # one element: z.conj().imag is contiguous then, and still has to be negated
    bint is_data_dependent    # output: once it was -1. After a run, TensorRT may report the size of that run
    bint is_written           # an output aliases it: the engine writes into the caller's memory
    int64_t* values           # shape tensor: our copy
    size_t value_capacity     # bytes at `values`


cdef inline bint is_last(const IOSlot* slot, PyObject* value) noexcept:
    """Whether `value` is the tensor that was checked last."""
    return value == slot.last_object and value == referent(slot.last_reference)


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
    """

    cdef tuple inputs
    cdef tuple outputs
    cdef object device
    cdef Py_ssize_t input_count
    cdef Py_ssize_t output_count
    cdef Py_ssize_t count
    cdef IOSlot* at
    cdef list references         # weak, to the tensors last checked: a slot borrows its own

    cdef const DLExchangeAPI* api
    cdef PyTypeObject* tensor_type
    cdef object is_neg
    cdef uintptr_t alignment     # of a device address
    cdef object placeholder      # memory that empty tensors are bound to
    cdef uintptr_t placeholder_address

    def __cinit__(self, tuple inputs not None, tuple outputs not None, device):
        cdef Py_ssize_t index
        self.api = torch_exchange_api()
        self.tensor_type = <PyTypeObject*> torch.Tensor
        self.is_neg = torch.Tensor.is_neg
        self.inputs = inputs
        self.outputs = outputs
        self.device = device
        self.input_count = len(inputs)
        self.output_count = len(outputs)
        self.count = self.input_count + self.output_count
        self.references = [None] * self.count
        self.alignment = CUDA_ALIGNMENT if device.type == "cuda" else CPU_ALIGNMENT
        self.placeholder = torch.empty(self.alignment, dtype=torch.uint8, device=device)
        self.placeholder_address = self.placeholder.data_ptr()
        self.at = <IOSlot*> PyMem_Calloc(max(self.count, 1), sizeof(IOSlot))
        if self.at == NULL:
            raise MemoryError()
        for index, tensor in enumerate((*inputs, *outputs)):
            self._describe(&self.at[index], tensor)

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
        if self.device.type == "cuda" and not tensor.is_shape_tensor:
            slot.layout.device = pack_device(DL_CUDA, self.device.index or 0)
        else:
            slot.layout.device = pack_device(DL_CPU, 0)
        return 0

    cdef inline bint is_negative(self, PyObject* value) except -1:
        """Whether a tensor is a view whose elements still have to be negated, which DLPack does not tell."""
        cdef PyObject* stack[2]
        stack[1] = value
        return returns_true(<PyObject*> self.is_neg, stack, 1)

    cdef int remember(self, Py_ssize_t index, PyObject* value) except -1:
        """Note that a tensor was checked, so that the same tensor need not be checked in full again.

        A weak reference tells whether it is the same. It costs more than one check, so it is made for a
        tensor that comes a second time.
        """
        cdef IOSlot* slot = &self.at[index]
        if value == slot.last_object:
            self.references[index] = PyWeakref_NewRef(<object> value, None)
            slot.last_reference = <PyObject*> self.references[index]
        else:
            slot.last_reference = <PyObject*> _GONE
            slot.last_object = value
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

    cdef void forget(self) noexcept:
        """Take no address and no tensor for bound or checked any more."""
        cdef Py_ssize_t index
        for index in range(self.count):
            self.at[index].address = 0
            self.at[index].last_object = NULL
            if index < self.input_count:
                self.at[index].layout.ndim = -1
