# cython: boundscheck=False, wraparound=False
"""Runs an engine through captured graphs: finds the one for a call's addresses, or captures it.

A graph has the addresses of its inputs and outputs baked in. A steady loop comes with the same few
addresses again and again, so graphs are captured for callers' addresses while there are few of them, or
they recur; when they churn, inputs are copied to static tensors, which have a graph of their own. A copy
costs more than a launch.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cuda.bindings cimport cydriver
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcpy

from trt_rt._core.captured_graph cimport CapturedGraph, is_for
from trt_rt._core.dlpack cimport DLTensor
from trt_rt._core.driver cimport check
from trt_rt._core.io_slot cimport IOSlot, layout_bytes
from trt_rt._core.output_binding cimport OutputBinding
from trt_rt._core.shape_record cimport ShapeRecord, hash_words

import torch

from trt_rt._core.dlpack import tensor_from_address, view_of
from trt_rt._core.garbage_collection import no_garbage_collection
from trt_rt.errors import ExecutionError

cdef extern from "Python.h":
    Py_ssize_t PyList_GET_SIZE(object)

# Graphs captured for callers' addresses of one set of shapes, before addresses have to recur for one.
cdef Py_ssize_t ADDRESS_GRAPHS = 4


@cython.no_gc_clear
cdef class GraphBinding(OutputBinding):
    """What a call needs besides to be launched as a captured graph."""

    def __cinit__(self, contexts, tuple inputs, tuple outputs, **options):
        self.graphs = []
        self.wanted = <uintptr_t*> PyMem_Calloc(max(len(inputs) + len(outputs), 1), sizeof(uintptr_t))
        if self.wanted == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.wanted)
        self.wait_quietly()  # before the graphs' contexts go

    cdef object run_graph(self, PyObject** args, object out):
        """The rest of a call once the inputs were read."""
        cdef Py_ssize_t index
        cdef object result = None
        if self.record.is_data_dependent:
            raise ExecutionError(
                f"engine {self.name!r}: the size of an output depends on data, so it cannot be run as a CUDA "
                "graph. Leave enable_cudagraphs for this module."
            )
        if self.shapes_changed:
            self.graph = None
        if out is not None:
            result = self.bind_callers(args, out)
        elif self.ring_size != 0 and not self.has_aliases:
            if self.shapes_changed or self.buffers is None:
                self._choose_buffers()
            result = self.bind_preallocated()
        else:
            self._want_static_outputs()
        if self.graph is not None and not self.graph_is_stale:
            self.launch_graph(self.graph)
        else:
            self._choose_graph(out is not None)
            # What a call binds is committed when it has succeeded.
            self.graph_is_stale = False
            for index in range(self.input_count + self.output_count):
                self.slots[index].address = self.slots[index].next_address
        return self._copied_outputs(args) if result is None else result

    @cython.final
    cdef int _choose_graph(self, bint copies_outputs) except -1:
        """Launch the graph for the addresses of this call, or capture one, or run on copies."""
        cdef Py_ssize_t index
        cdef bint is_static = False
        cdef CapturedGraph graph
        for index in range(self.input_count + self.output_count):
            self.wanted[index] = self.slots[index].next_address
        graph = self._find_graph()
        if graph is None and not self._may_bake_addresses():
            is_static = True
            self._copy_inputs()
            if copies_outputs:
                for index in range(self.output_count):
                    if self.aliased[index] < 0:
                        self.wanted[self.input_count + index] = self._static_address(self.input_count + index)
            graph = self.static_graph
            if graph is None or not is_for(graph, self.record, self.wanted):
                graph = self.static_graph = self._find_graph()
        if graph is not None:
            self.launch_graph(graph)
        else:
            graph = self.capture_graph(self.record, self.wanted)
            graph.statics = [tensor for tensor in self.record.statics if tensor is not None]
            graph.is_static = is_static
            self._add_graph(graph)
        if is_static and copies_outputs:
            self._copy_to_callers()
        self.graph = None if is_static else graph
        return 0

    @cython.final
    cdef bint _may_bake_addresses(self) except -1:
        """Whether a graph should be captured for the callers' own addresses."""
        if PyList_GET_SIZE(self.temporaries) != 0:  # copies of ours: their addresses mean nothing
            return False
        if self.record.graph_count < ADDRESS_GRAPHS + self.ring_size:
            return True
        return self.record.recurs(
            hash_words(<const int64_t*> self.wanted, self.input_count + self.output_count)
        )

    @cython.final
    cdef CapturedGraph _find_graph(self):
        cdef CapturedGraph graph
        for graph in self.graphs:
            if is_for(graph, self.record, self.wanted):
                return graph
        return None

    @cython.final
    cdef int _add_graph(self, CapturedGraph graph) except -1:
        cdef CapturedGraph oldest
        if len(self.graphs) >= self.max_graphs:
            oldest = min(self.graphs, key=_last_used)
            if self.on_cuda:  # its context must not go while it runs
                self.order.wait_for(self.stream, self.on_external_stream)
            self.graphs.remove(oldest)
            if oldest is self.static_graph:
                self.static_graph = None
            oldest.record.graph_count -= not oldest.is_static
        self.graph_clock += 1
        graph.last_used = self.graph_clock
        graph.record.graph_count += not graph.is_static
        self.graphs.append(graph)
        return 0

    cdef int launch_graph(self, CapturedGraph graph) except -1:
        self.graph_clock += 1
        graph.last_used = self.graph_clock
        self.replays += 1
        if graph.launch(self.stream):
            self.fail("execute_async_v3")
        if self.on_external_stream:
            self.order.mark_done(self.stream)
        return 0

    cdef CapturedGraph capture_graph(self, ShapeRecord record, const uintptr_t* addresses):
        """Run the engine once with these addresses, in a context of the graph's own, and capture that.

        The run before the capture, which TensorRT asks for, is the call's own: state that the engine
        keeps in its inputs advances by one step, not two.
        """
        cdef CapturedGraph graph = CapturedGraph(self.contexts.create_for_graph(), record)
        cdef Py_ssize_t index
        cdef bint refused = False
        context = graph.context
        graph.set_addresses(addresses, self.input_count + self.output_count)
        if context.active_optimization_profile != record.profile:
            if context.set_optimization_profile_async(record.profile, self.stream_handle) is not True:
                self.fail(f"set_optimization_profile_async({record.profile})")
        for index in range(self.input_count):
            if self.slots[index].is_dynamic:
                if context.set_input_shape(self.names[index], record.input_shapes[index]) is not True:
                    self.fail(f"set_input_shape({self.names[index]!r}, {record.input_shapes[index]})")
        for index in range(self.input_count + self.output_count):
            address = addresses[index]
            if index < self.input_count and self.slots[index].is_shape_tensor:
                address = self._kept_values(graph, index)
            if context.set_tensor_address(self.names[index], address) is not True:
                self.fail(f"set_tensor_address({self.names[index]!r}, {address:#x})")
        graph.workspace = self.contexts.give_graph_workspace(context, self.stream_handle)
        execute, self.execute = self.execute, graph.execute
        try:
            self.enqueue()
        finally:
            self.execute = execute
        if self.on_cuda:
            with no_garbage_collection():
                refused = graph.capture(self.order)
            if refused:
                self.order.wait_for(self.stream, self.on_external_stream)  # the context goes with the graph
                self.fail("capturing execute_async_v3 in a CUDA graph")
        self.captures += 1
        return graph

    cdef void forget(self) noexcept:
        self.graph = None
        self.graph_is_stale = False
        OutputBinding.forget(self)

    cdef bint has_graphs(self) except -1:
        return len(self.graphs) != 0

    cdef int drop_graphs(self) except -1:
        """Let go of all graphs, and of the memory that they read and write."""
        cdef ShapeRecord record
        if self.on_cuda and self.has_stream and self.has_graphs():
            self.order.wait_for(self.stream, self.on_external_stream)
        self.graph = None
        self.static_graph = None
        self.graphs.clear()
        self.graph_generation += 1
        for record in self.records.records:
            record.graph_count = 0
            record.drop_buffers()
        return 0

    cdef int change_stream(self, uintptr_t stream) except -1:
        # What was allocated for the old stream would be handed out in that stream's order when it is
        # freed, so that nothing of it may be in use on the new one.
        cdef bint had_stream = self.has_stream
        OutputBinding.change_stream(self, stream)
        if had_stream and not self.is_borrowing:
            self.drop_graphs()
            self.buffers = None
        return 0

    @cython.final
    cdef int _want_static_outputs(self) except -1:
        cdef Py_ssize_t output
        cdef IOSlot* slot
        for output in range(self.output_count):
            slot = &self.slots[self.input_count + output]
            slot.last_object = NULL
            if self.aliased[output] >= 0:
                slot.next_address = self.slots[self.aliased[output]].next_address
            else:
                slot.next_address = self._static_address(self.input_count + output)
            if slot.next_address != slot.address:
                self.graph_is_stale = True
        return 0

    @cython.final
    cdef uintptr_t _static_address(self, Py_ssize_t index) except 0:
        """Address of the static tensor in place of a caller's, made when it is first needed."""
        cdef DLTensor tensor
        cdef ShapeRecord record = self.record
        if record.static_addresses[index] == 0:
            if index >= self.input_count:
                value = self.allocate_output(index - self.input_count, &tensor)
            else:
                value = torch.empty(
                    record.input_shapes[index], dtype=self.inputs[index].dtype, device=self.device
                )
            record.set_static(index, value)
            if record.static_addresses[index] == 0:  # no elements, no memory
                record.static_addresses[index] = self.placeholder_address
        return record.static_addresses[index]

    @cython.final
    cdef int _copy_inputs(self) except -1:
        """Copy inputs to static tensors, all but those that the engine writes into or reads from the host."""
        cdef Py_ssize_t index
        cdef uintptr_t target
        for index in range(self.input_count):
            if self.slots[index].is_shape_tensor or self.slots[index].is_written:
                continue
            target = self._static_address(index)
            if self.slots[index].next_address != target:
                self._copy(target, self.slots[index].next_address, layout_bytes(&self.slots[index].layout))
                self.wanted[index] = target
        return 0

    @cython.final
    cdef int _copy(self, uintptr_t target, uintptr_t source, size_t size) except -1:
        if size == 0:
            return 0
        if not self.on_cuda:
            memcpy(<void*> target, <const void*> source, size)
            return 0
        return check(
            cydriver.cuMemcpyAsync(target, source, size, <cydriver.CUstream> self.stream), b"cuMemcpyAsync"
        )

    @cython.final
    cdef object _copied_outputs(self, PyObject** args):
        """New tensors that hold what the graph has written to the static ones."""
        cdef Py_ssize_t output
        cdef tuple result
        if self.output_count == 1:
            return self._copied_output(args, 0)
        result = PyTuple_New(self.output_count)
        for output in range(self.output_count):
            value = self._copied_output(args, output)
            Py_INCREF(value)
            PyTuple_SET_ITEM(result, output, value)
        return result

    @cython.final
    cdef object _copied_output(self, PyObject** args, Py_ssize_t output):
        cdef DLTensor tensor
        if self.aliased[output] >= 0:
            return <object> args[self.aliased[output]]
        value = self.allocate_output(output, &tensor)
        self._copy(
            <uintptr_t> tensor.data,
            self.record.static_addresses[self.input_count + output],
            layout_bytes(&self.record.outputs[output]),
        )
        return value

    @cython.final
    cdef int _copy_to_callers(self) except -1:
        cdef Py_ssize_t output
        for output in range(self.output_count):
            if self.aliased[output] < 0:
                self._copy(
                    self.slots[self.input_count + output].next_address,
                    self.wanted[self.input_count + output],
                    layout_bytes(&self.record.outputs[output]),
                )
        return 0

    def _kept_values(self, CapturedGraph graph, Py_ssize_t index):
        """Address of a copy of a shape tensor's values: those in the slot change with the next call."""
        values = self._shape_tensor(index).clone()
        graph.values.append(values)
        return values.data_ptr() or <uintptr_t> self.slots[index].values

    def _shape_tensor(self, Py_ssize_t index):
        return tensor_from_address(
            <uintptr_t> self.slots[index].values,
            self._shape_of(index),
            self.inputs[index].dtype,
            torch.device("cpu"),
        )

    def _graph_inputs(self):
        """The static inputs of the last call's shapes; of a shape tensor, its values."""
        cdef Py_ssize_t index
        cdef IOSlot* slot
        if self.record is None:
            return None
        tensors = []
        for index in range(self.input_count):
            slot = &self.slots[index]
            if slot.is_shape_tensor:
                tensors.append(self._shape_tensor(index).clone())
            else:
                self._static_address(index)
                tensors.append(view_of(self.record.statics[index]))
        return tuple(tensors)


def _last_used(CapturedGraph graph):
    return graph.last_used
