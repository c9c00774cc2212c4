"""Reads and checks the tensors that callers pass as ``out=``."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

from trt_rt._core.dlpack cimport DLTensor, read_tensor
from trt_rt._core.tensor_layout cimport TensorLayout, is_contiguous, layout_bytes, same_kind, same_shape

import torch

from trt_rt._core.arguments import as_plain_tensor
from trt_rt._core.refused_tensors import describe, refuse_kind, refuse_to_write
from trt_rt.errors import InputTypeError, InputValueError


@cython.final
@cython.no_gc_clear
cdef class CallersOutputs:
    """The tensors that a caller wants the outputs in.

    Parameters
    ----------
    slots : SlotTable
        Gets the addresses of the tensors.
    inputs : InputBinding
        The inputs of the call, which were taken.
    engine_name : str
        For messages.
    """

    cdef SlotTable slots
    cdef InputBinding inputs
    cdef str engine_name
    cdef IOSlot* at              # of the outputs
    cdef Py_ssize_t count

    def __cinit__(self, SlotTable slots not None, InputBinding inputs not None, str engine_name):
        self.slots = slots
        self.inputs = inputs
        self.engine_name = engine_name
        self.at = &slots.at[slots.input_count]
        self.count = slots.output_count

    cdef tuple listed(self, out):
        """Return the tensors of ``out=``: a tensor, or a sequence of them."""
        if type(out) is tuple:
            return out
        if (<PyObject*> out).ob_type == self.slots.tensor_type or isinstance(out, torch.Tensor):
            return (out,)
        try:
            return tuple(out)
        except TypeError:
            raise InputTypeError(
                f"engine {self.engine_name!r}: out= takes a torch.Tensor or a sequence of them; "
                f"got {describe(out)}."
            ) from None

    cdef tuple take(self, PyObject** args, tuple given):
        """Check the tensors, put their addresses into the slots, and return one for each output.

        Outputs that calls do not return lie in the memory of arguments, which stand for them.
        """
        cdef Py_ssize_t output
        cdef ShapeRecord record = self.inputs.record
        cdef tuple values = given
        if len(given) != self.count or len(self.slots.returned) != self.count:
            values = self._with_aliases(args, given)
        if record.is_data_dependent:
            self._refuse_out()
        for output in range(self.count):
            self._take_one(record, output, values[output])
        for output in range(self.count):
            if self._overlaps(record, output):
                raise InputValueError(
                    f"output {self.slots.outputs[output]}: its memory in out= overlaps an input's or another "
                    "output's, so that the engine would overwrite what it still reads. Pass memory of its "
                    "own."
                )
        return values

    cdef tuple _with_aliases(self, PyObject** args, tuple given):
        """Return a tensor for each output, where the caller gave one for each output that calls return."""
        cdef Py_ssize_t output
        if len(given) != len(self.slots.returned):
            raise InputValueError(
                f"a call of engine {self.engine_name!r} returns {len(self.slots.returned)} output(s), "
                f"but out= holds {len(given)}."
            )
        values = iter(given)
        return tuple([
            next(values) if output in self.slots.returned else <object> args[self.at[output].source]
            for output in range(self.count)
        ])

    cdef int _refuse_out(self) except -1:
        name = self.engine_name
        if self.inputs.allocate_all:
            raise InputValueError(
                f"engine {name!r}: out= cannot be used while TensorRT allocates every output. Leave "
                "enable_output_allocator, or make the module without requires_output_allocator=True."
            )
        raise InputValueError(
            f"engine {name!r}: out= cannot be used, because TensorRT allocates an output whose size is known "
            "after the run only."
        )

    cdef int _take_one(self, ShapeRecord record, Py_ssize_t output, object value) except -1:
        """Read and check a tensor that the engine is to write into."""
        cdef IOSlot* slot = &self.at[output]
        cdef TensorLayout* layout = &record.outputs[output]
        cdef Py_ssize_t source = slot.source
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

    cdef bint _overlaps(self, ShapeRecord record, Py_ssize_t output) noexcept:
        """Whether an output's memory meets another output's or an input's, aliases by design aside."""
        cdef Py_ssize_t index
        cdef Py_ssize_t input_count = self.slots.input_count
        cdef uintptr_t begin = self.at[output].next_address
        cdef uintptr_t end = begin + layout_bytes(&record.outputs[output])
        cdef uintptr_t other
        cdef const TensorLayout* layout
        for index in range(self.slots.count):
            if index == input_count + output or index == self.at[output].source:
                continue
            other = self.slots.at[index].next_address
            if index < input_count:
                layout = &self.slots.at[index].layout
            else:
                layout = &record.outputs[index - input_count]
            if begin < end and begin < other + layout_bytes(layout) and other < end:
                return True
        return False
