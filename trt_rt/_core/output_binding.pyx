# cython: boundscheck=False, wraparound=False
"""Binds the outputs of a call: fresh, pre-allocated, the caller's, or those that TensorRT allocates."""

cimport cython
from cpython.exc cimport PyErr_Clear
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uintptr_t

from trt_rt._core.bound_context cimport is_last
from trt_rt._core.dlpack cimport DLTensor, pack_device
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
from trt_rt.errors import ExecutionError, InputTypeError, InputValueError

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject* ob_item[1]

    PyObject* PyList_GET_ITEM(object, Py_ssize_t)  # borrowed
    Py_ssize_t PyList_GET_SIZE(object)
    # NULL: raised. Of a pointer: all threads call the same function, and would share its reference count.
    PyObject* PyObject_Vectorcall(PyObject*, PyObject* const*, size_t, PyObject*) noexcept

cdef extern from *:
    """
    static int trt_rt_raise_pending(void) { return -1; }
    """
    int raise_pending "trt_rt_raise_pending" () except -1  # lets Cython see the exception that C code set


cdef inline PyObject** _items(tuple items) noexcept:
    return (<PyTupleObject*> items).ob_item


cdef class OutputBinding(InputBinding):
    def __cinit__(self, contexts, tuple inputs, tuple outputs, **options):
        self.aliased = <Py_ssize_t*> PyMem_Calloc(max(len(outputs), 1), sizeof(Py_ssize_t))
        if self.aliased == NULL:
            raise MemoryError()

    def __init__(self, contexts, tuple inputs, tuple outputs, *, allocate_all, **options):
        cdef Py_ssize_t output
        InputBinding.__init__(self, contexts, inputs, outputs, **options)
        self.allocate_all = allocate_all
        self.allocate = empty_function(self.device)
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

    cdef void forget(self) noexcept:
        self.buffers = None
        InputBinding.forget(self)

    cdef object bind_outputs(self, PyObject** args, object out):
        self.buffers = None  # those of other shapes must not be taken for this call's, or a later one's
        if out is not None:
            return self.bind_callers(args, out)
        if self.ring_size != 0 and not self.has_aliases and not self.record.is_data_dependent:
            self._choose_buffers()
            return self.bind_preallocated()
        return self.bind_fresh(args)

    cdef object bind_fresh(self, PyObject** args):
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

    @cython.final
    cdef object _fresh_output(self, PyObject** args, Py_ssize_t output):
        cdef DLTensor tensor
        if self.aliased[output] >= 0:
            return self._aliased_output(args, output)
        if self.record.allocations[output] is None:  # TensorRT allocates it
            return None
        value = self.allocate_output(output, &tensor)
        self._bind_output(output, &tensor)
        return value

    @cython.final
    cdef object allocate_output(self, Py_ssize_t output, DLTensor* tensor):
        """A new tensor, and what DLPack says of it."""
        cdef object allocation = self.record.allocations[output]
        cdef PyObject* allocated
        cdef PyObject* allocate = <PyObject*> self.allocate
        if self.slots[self.input_count + output].is_shape_tensor:
            allocate = <PyObject*> self.allocate_on_host
        allocated = PyObject_Vectorcall(allocate, _items(<tuple> allocation), 3, NULL)
        if allocated == NULL:
            self._fail_allocation(output)
        value = <object> allocated
        Py_DECREF(value)  # the call's reference; `value` holds its own
        if self.api.dltensor_from_py_object_no_sync(<PyObject*> value, tensor) != 0:
            raise_pending()
        if (
            pack_device(tensor.device.device_type, tensor.device.device_id)
            != self.slots[self.input_count + output].layout.device
        ):
            self._refuse_current_device()
        return value

    def _refuse_current_device(self):
        raise ExecutionError(
            f"engine {self.name!r} is on {self.device}, but the current device is "
            f"cuda:{torch.cuda.current_device()}, where its outputs would be. Call it under "
            f"torch.cuda.device({self.device_index}), or call set_multi_device_safe_mode(True)."
        )

    @cython.final
    cdef object _fail_allocation(self, Py_ssize_t output):
        try:
            raise_pending()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what PyTorch raises on a CPU, and for sizes beyond any machine
            shape = self.record.allocations[output][0]
            raise MemoryError(
                f"output {self.outputs[output]}: no memory for shape {list(shape)}: {error}"
            ) from None

    @cython.final
    cdef object _aliased_output(self, PyObject** args, Py_ssize_t output):
        """The caller's own tensor: the engine writes into it."""
        cdef Py_ssize_t source = self.aliased[output]
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        slot.next_address = self.slots[source].next_address
        if slot.next_address != slot.address:
            self.bind_address(self.input_count + output)
        return <object> args[source]

    @cython.final
    cdef int _bind_output(self, Py_ssize_t output, const DLTensor* tensor) except -1:
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        slot.next_address = <uintptr_t> tensor.data if tensor.data != NULL else self.placeholder_address
        slot.last_object = NULL
        if slot.next_address != slot.address:
            self.bind_address(self.input_count + output)
        return 0

    @cython.final
    cdef object bind_preallocated(self):
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

    @cython.final
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

    @cython.final
    cdef OutputBuffers _new_buffers(self):
        cdef Py_ssize_t output
        cdef OutputBuffers buffers
        owners = []
        for output in range(self.output_count):
            owners.append(self._fresh_output(NULL, output))
        buffers = OutputBuffers(tuple(owners))
        buffers.set_layouts(self.record.outputs)
        return buffers

    cdef object bind_callers(self, PyObject** args, object out):
        """The tensors that the caller passed as ``out=``."""
        cdef Py_ssize_t output, index
        values = self._listed(out)
        if len(values) != self.output_count:
            raise InputValueError(
                f"engine {self.name!r} has {self.output_count} output(s), but out= holds {len(values)}."
            )
        if self.record.is_data_dependent:
            raise InputValueError(
                f"engine {self.name!r}: out= cannot be used, because TensorRT allocates an output whose size "
                "is known after the run only."
            )
        for output in range(self.output_count):
            self._take_output(args, output, values[output])
        for output in range(self.output_count):
            if self._overlaps(output):
                raise InputValueError(
                    f"output {self.outputs[output]}: its memory in out= overlaps an input's or another "
                    "output's, so that the engine would overwrite what it still reads. Pass memory of its "
                    "own."
                )
        for index in range(self.input_count, self.input_count + self.output_count):
            if self.slots[index].next_address != self.slots[index].address:
                self.bind_address(index)
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

    @cython.final
    cdef int _take_output(self, PyObject** args, Py_ssize_t output, object value) except -1:
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        cdef TensorLayout* layout = &self.record.outputs[output]
        cdef DLTensor tensor
        target = self.outputs[output]
        if type(value) is not torch.Tensor:
            if (
                not isinstance(value, torch.Tensor)
                or as_plain_tensor(value, target).data_ptr() != value.data_ptr()
            ):
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
        if (
            is_last(slot, <PyObject*> value)
            and slot.next_address == slot.address
            and is_contiguous(&tensor)
        ):
            return 0
        if self.aliased[output] >= 0 and slot.next_address != self.slots[self.aliased[output]].next_address:
            raise InputValueError(
                f"output {target} lies in the memory of input {target.aliased_input!r}; pass that tensor in "
                "out=."
            )
        if (
            not is_contiguous(&tensor)
            or slot.next_address == 0
            or (slot.next_address & (self.alignment - 1) and not slot.is_shape_tensor)
            or self.is_negative(<PyObject*> value)
        ):
            raise InputValueError(
                f"output {target}: out= must be contiguous and start at a multiple of {self.alignment} "
                f"bytes; got {describe(value)} with strides {list(value.stride())} at address "
                f"{value.data_ptr():#x}."
            )
        self.remember(self.input_count + output, <PyObject*> value)
        return 0

    @cython.final
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

    cdef object collect(self, object result):
        """Enqueue, and put the outputs that TensorRT allocated in their places."""
        values = list(result) if isinstance(result, (tuple, list)) else [result]
        for allocator in self.allocators:
            if allocator is not None:
                allocator.start()
        try:
            self.enqueue()
            for output, allocator in enumerate(self.allocators):
                if allocator is not None:
                    values[output] = allocator.take()
        except ExecutionError as failure:
            errors = [each.error for each in self.allocators if each is not None and each.error]
            for allocator in self.allocators:
                if allocator is not None:
                    allocator.start()  # lest it keep the error, and its traceback the caller's tensors
            if errors:
                raise errors[0] from failure
            raise
        return values[0] if len(values) == 1 else tuple(values)
