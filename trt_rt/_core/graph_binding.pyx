# cython: boundscheck=False, wraparound=False
"""Runs an engine through captured graphs: finds the one for a call's addresses, or captures it.

A graph has the addresses of its inputs and outputs baked in. A steady loop comes with the same few
addresses again and again, so graphs are captured for callers' addresses while those are few, or have come
often enough to earn one. Of other calls, what changes is copied to and from static tensors, by nodes of the
graph; fresh outputs always are.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from trt_rt._core.captured_graph cimport CapturedGraph
from trt_rt._core.copy_kernel cimport copy_kernel
from trt_rt._core.dlpack cimport DLTensor
from trt_rt._core.graph_cache cimport GraphCache, hash_key
from trt_rt._core.io_slot cimport IOSlot, layout_bytes
from trt_rt._core.output_binding cimport OutputBinding
from trt_rt._core.shape_record cimport ShapeRecord
from trt_rt._core.tensor_copies cimport TensorCopies

import torch

from trt_rt._core.dlpack import tensor_from_address, view_of
from trt_rt._core.garbage_collection import no_garbage_collection
from trt_rt.errors import ExecutionError

# Graphs captured for one set of shapes before addresses have to earn one: for all the addresses that come;
# then for those that stay, with the rest copied; then for those that cannot be copied. Only while there is
# room: graphs that take each other's places would cost a capture again and again.
cdef Py_ssize_t ADDRESS_GRAPHS = 4
cdef Py_ssize_t PARTLY_COPYING_GRAPHS = 2
cdef Py_ssize_t COPYING_GRAPHS = 2

cdef enum OutputKind:
    UNKNOWN
    FRESH
    PREALLOCATED
    CALLERS


@cython.no_gc_clear
cdef class GraphBinding(OutputBinding):
    """What a call needs besides to be launched as a captured graph."""

    def __cinit__(self, contexts, tuple inputs, tuple outputs, **options):
        self.graphs = GraphCache()
        self.wanted = <uintptr_t*> PyMem_Calloc(max(len(inputs) + len(outputs), 1), sizeof(uintptr_t))
        if self.wanted == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.wanted)
        self.wait_quietly()  # before the graphs' contexts go

    cdef object run_graph(self, PyObject** args, object out):
        """The rest of a call once the inputs were read."""
        cdef OutputKind kind = FRESH
        if self.record.is_data_dependent:
            raise ExecutionError(
                f"engine {self.name!r}: the size of an output depends on data, so it cannot be run as a CUDA "
                "graph. Leave enable_cudagraphs for this module."
            )
        if out is not None:
            kind = CALLERS
            self.buffers = None  # those of other shapes must not be taken for a later call's
            result = self.bind_callers(args, out)
        elif self.ring_size != 0 and not self.has_aliases:
            kind = PREALLOCATED
            if self.shapes_changed or self.buffers is None:
                self._choose_buffers()
            result = self.bind_preallocated()
        else:
            result = self._bind_copied_outputs(args)
        self.last_record = self.record
        if self.shapes_changed or kind != self.output_kind:
            self.graph = None
            self.output_kind = kind
        if self.graph is not None and not self.graph_is_stale:
            self.launch_graph(self.graph)
        else:
            self._choose_graph()
        return result

    @cython.final
    cdef int _choose_graph(self) except -1:
        """Launch the graph for the addresses of this call, or capture one, or run without."""
        cdef Py_ssize_t index
        cdef CapturedGraph graph
        self.graph = None
        self._want_callers_addresses()
        graph = self._launch_or_capture(self._address_graphs())
        if graph is None and not self._meets_statics():
            graph = self._launch_or_capture_copying(ADDRESS_GRAPHS + self.ring_size)
        if graph is None:
            self._run_without_graph()
        elif graph.from_callers is None:  # else each call is counted, so that its addresses may earn a graph
            self.graph = graph
        # What a call binds is committed when it has succeeded.
        self.graph_is_stale = False
        for index in range(self.input_count + self.output_count):
            self.slots[index].address = self.slots[index].next_address
        return 0

    @cython.final
    cdef Py_ssize_t _address_graphs(self) except -1:
        """How many graphs these shapes may have, for one more that serves these addresses only."""
        if self.record.history.graph_count == 0 or self._inputs_are_static():
            return self.record.history.graph_count + 1
        # The other half is for graphs that copy, of which one serves all addresses.
        return ADDRESS_GRAPHS + self.ring_size if self.graphs.has_room(2) else 0

    @cython.final
    cdef CapturedGraph _launch_or_capture_copying(self, Py_ssize_t address_graphs):
        cdef CapturedGraph graph
        self._copy_what_changed()
        graph = self._launch_or_capture(address_graphs + PARTLY_COPYING_GRAPHS)
        if graph is None:
            self._copy_all()
            graph = self._launch_or_capture(address_graphs + PARTLY_COPYING_GRAPHS + COPYING_GRAPHS)
        return graph

    @cython.final
    cdef CapturedGraph _launch_or_capture(self, Py_ssize_t allowed):
        """Run the graph for `wanted`; None if there is none, and it is not to be captured."""
        cdef uint64_t key_hash = hash_key(self.record, self.wanted, self.input_count + self.output_count)
        cdef CapturedGraph graph = self.graphs.find(key_hash, self.record, self.wanted)
        if graph is not None:
            self.launch_graph(graph)
        elif (
            self.record.history.graph_count < allowed and self.graphs.has_room(1)
        ) or self.record.history.earns_graph(key_hash):
            graph = self.capture_graph(self.record, self.wanted)
            self._add_graph(key_hash, graph)
        return graph

    @cython.final
    cdef int _want_callers_addresses(self) except -1:
        """Ask for a graph that reads and writes the caller's tensors, but for outputs that must be copied."""
        cdef Py_ssize_t index
        for index in range(self.input_count + self.output_count):
            self.wanted[index] = self.slots[index].next_address
            # A host tensor is written when the engine is enqueued, not when a graph is launched.
            if index >= self.input_count and (self.output_kind == FRESH or self.slots[index].is_shape_tensor):
                self._copy(index)
        return 0

    @cython.final
    cdef int _copy_what_changed(self) except -1:
        """Ask for a graph that copies what lies elsewhere than at the last call that got here."""
        cdef Py_ssize_t index
        cdef uintptr_t* last = self.record.history.last
        for index in range(self.input_count + self.output_count):
            if self.slots[index].next_address != last[index]:
                last[index] = self.slots[index].next_address
                self._copy(index)
        return 0

    @cython.final
    cdef int _copy_all(self) except -1:
        cdef Py_ssize_t index
        for index in range(self.input_count + self.output_count):
            self._copy(index)
        return 0

    @cython.final
    cdef int _copy(self, Py_ssize_t index) except -1:
        """Ask for a graph that copies an I/O tensor, if that can be copied."""
        cdef IOSlot* slot = &self.slots[index]
        if index < self.input_count:
            if not slot.is_shape_tensor and not slot.is_written and self._size_of(self.record, index) != 0:
                self.wanted[index] = 0
        elif self.aliased[index - self.input_count] < 0 and self._size_of(self.record, index) != 0:
            self.wanted[index] = 0
        return 0

    @cython.final
    cdef int64_t _size_of(self, ShapeRecord record, Py_ssize_t index) noexcept:
        """Bytes of an I/O tensor, for the shapes of this call, which are the record's."""
        if index < self.input_count:
            return layout_bytes(&self.slots[index].layout)
        return layout_bytes(&record.outputs[index - self.input_count])

    @cython.final
    cdef bint _inputs_are_static(self) noexcept:
        """Whether the caller has written in place: that is worth a graph at once."""
        cdef Py_ssize_t index
        cdef uintptr_t* static_addresses = self.record.static_addresses
        if self.output_kind == CALLERS:
            return False
        for index in range(self.input_count):
            if self.wanted[index] != static_addresses[index] and not self.slots[index].is_shape_tensor:
                return False
        return self.input_count != 0

    @cython.final
    cdef bint _meets_statics(self) noexcept:
        """Whether a caller's tensor lies in a static one of another input, which a copy would overwrite.

        Only if the caller has those: by `graph_inputs`.
        """
        cdef Py_ssize_t index, other
        cdef uintptr_t begin, end, static_begin
        if not self.record.gave_statics:
            return False
        for index in range(self.input_count + self.output_count):
            begin = self.slots[index].next_address
            end = begin + self._size_of(self.record, index)
            for other in range(self.input_count):
                static_begin = self.record.static_addresses[other]
                if (
                    (other != index or begin != static_begin)
                    and begin < static_begin + self._size_of(self.record, other)
                    and static_begin < end
                ):
                    return True
        return False

    @cython.final
    cdef int _add_graph(self, uint64_t key_hash, CapturedGraph graph) except -1:
        cdef CapturedGraph oldest = self.graphs.least_recent()
        if oldest is not None:
            if self.on_cuda:  # its context must not go while it runs
                self.order.wait_for(self.stream, self.on_external_stream)
            self.graphs.remove(oldest)
            oldest.record.history.graph_count -= 1
        graph.record.history.graph_count += 1
        self.graphs.add(key_hash, graph)
        return 0

    cdef int launch_graph(self, CapturedGraph graph) except -1:
        self.graphs.mark_used(graph)
        self.replays += 1
        if graph.has_copies:
            graph.take_addresses(self.slots)
        if graph.launch(self.stream):
            self.fail("execute_async_v3")
        if self.on_external_stream:
            self.order.mark_done(self.stream)
        return 0

    cdef CapturedGraph capture_graph(self, ShapeRecord record, const uintptr_t* addresses):
        """Run the engine once with these addresses, in a context of the graph's own, and capture that.

        An address of 0 stands for a tensor that the graph copies. The run before the capture, which TensorRT
        asks for, is the call's own: state that the engine keeps in its inputs advances by one step, not two.
        """
        cdef CapturedGraph graph = CapturedGraph(self.contexts.create_for_graph(), record)
        cdef bint refused = True
        graph.set_addresses(addresses, self.input_count + self.output_count)
        self._plan_copies(graph)
        self._set_up(graph)
        execute, self.execute = self.execute, graph.execute
        try:
            graph.copy_now(self.stream, self.on_cuda, False)
            self.enqueue()
            graph.copy_now(self.stream, self.on_cuda, True)
        finally:
            self.execute = execute
        if self.on_cuda:
            try:
                with no_garbage_collection():
                    refused = graph.capture(self.order)
            finally:
                if refused:
                    self.wait_quietly()  # the context goes with the graph
            if refused:
                self.fail("capturing execute_async_v3 in a CUDA graph")
        self.captures += 1
        return graph

    def _plan_copies(self, CapturedGraph graph):
        """Note which tensors a graph copies."""
        cdef Py_ssize_t index
        cdef TensorCopies copies
        for index in range(graph.count):
            if graph.addresses[index] != 0:
                continue
            copies = self._copies_for(graph, index)
            copies.add(index, self._static_address(graph.record, index), self._size_of(graph.record, index))
            graph.has_copies = True
            graph.copies_beside |= copies.kernel == NULL
        graph.statics = [tensor for tensor in graph.record.statics if tensor is not None]
        graph.take_addresses(self.slots)

    @cython.final
    cdef TensorCopies _copies_for(self, CapturedGraph graph, Py_ssize_t index):
        if index < self.input_count:
            if graph.from_callers is None:
                graph.from_callers = self._new_copies(self.input_count, False)
            return graph.from_callers
        if self.slots[index].is_shape_tensor:
            if graph.to_host is None:
                graph.to_host = TensorCopies(self.output_count, True)
            return graph.to_host
        if graph.to_callers is None:
            graph.to_callers = self._new_copies(self.output_count, True)
        return graph.to_callers

    @cython.final
    cdef TensorCopies _new_copies(self, Py_ssize_t capacity, bint is_outward):
        """Copies that are nodes of the graph, where there are graphs, and a kernel can be had."""
        cdef TensorCopies copies = TensorCopies(capacity, is_outward)
        copies.kernel = self.copy_kernel
        return copies

    cdef int allow_graphs(self, Py_ssize_t max_graphs) except -1:
        """Keep so many graphs from now on; there are none now."""
        self.graphs.resize(max_graphs)
        self.max_graphs = max_graphs
        self.defers_binding = max_graphs != 0
        if self.on_cuda and max_graphs != 0:  # not at the first capture: loading might break another thread's
            self.order.push_context()
            try:
                self.copy_kernel = copy_kernel(self.order.context)
            finally:
                self.order.pop_context()
        return 0

    def _set_up(self, CapturedGraph graph):
        """Tell the graph's context all that a run needs."""
        cdef Py_ssize_t index
        cdef ShapeRecord record = graph.record
        context = graph.context
        if context.active_optimization_profile != record.profile:
            if context.set_optimization_profile_async(record.profile, self.stream_handle) is not True:
                self.fail(f"set_optimization_profile_async({record.profile})")
        for index in range(self.input_count):
            if self.slots[index].is_dynamic:
                if context.set_input_shape(self.names[index], record.input_shapes[index]) is not True:
                    self.fail(f"set_input_shape({self.names[index]!r}, {record.input_shapes[index]})")
        for index in range(graph.count):
            address = graph.addresses[index] or record.static_addresses[index]
            if index < self.input_count and self.slots[index].is_shape_tensor:
                address = self._kept_values(graph, index)
            if context.set_tensor_address(self.names[index], address) is not True:
                self.fail(f"set_tensor_address({self.names[index]!r}, {address:#x})")
        graph.workspace = self.contexts.give_graph_workspace(context, self.stream_handle)

    @cython.final
    cdef int _run_without_graph(self) except -1:
        """Enqueue: what cannot be copied, as the engine writes into it, is new at every call."""
        cdef Py_ssize_t index
        self.use_record(self.record)
        for index in range(self.input_count + self.output_count):
            self.tell_address(index)
        return self.enqueue()

    cdef void forget(self) noexcept:
        self.graph = None
        self.graph_is_stale = False
        OutputBinding.forget(self)

    cdef bint has_graphs(self) except -1:
        return len(self.graphs.graphs) != 0

    cdef int drop_graphs(self) except -1:
        """Let go of all graphs, and of the memory that they read and write."""
        cdef ShapeRecord record
        if self.on_cuda and self.has_stream and self.has_graphs():
            self.order.wait_for(self.stream, self.on_external_stream)
        self.graph = None
        self.last_record = None
        self.graphs.clear()
        for record in self.records.records:
            record.history.clear()
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
    cdef object _bind_copied_outputs(self, PyObject** args):
        """New tensors for a graph to copy its outputs to."""
        cdef Py_ssize_t output
        cdef tuple result
        if self.output_count == 1:
            return self._bind_copied_output(args, 0)
        result = PyTuple_New(self.output_count)
        for output in range(self.output_count):
            value = self._bind_copied_output(args, output)
            Py_INCREF(value)
            PyTuple_SET_ITEM(result, output, value)
        return result

    @cython.final
    cdef object _bind_copied_output(self, PyObject** args, Py_ssize_t output):
        cdef DLTensor tensor
        cdef IOSlot* slot = &self.slots[self.input_count + output]
        if self.aliased[output] >= 0:
            return self._aliased_output(args, output)
        value = self.allocate_output(output, &tensor)
        slot.last_object = NULL
        slot.next_address = <uintptr_t> tensor.data if tensor.data != NULL else self.placeholder_address
        slot.address = slot.next_address  # that it is another than before makes no graph stale
        return value

    @cython.final
    cdef uintptr_t _static_address(self, ShapeRecord record, Py_ssize_t index) except 0:
        """Address of the static tensor in place of a caller's, made when it is first needed."""
        cdef DLTensor tensor
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
        cdef ShapeRecord record = self.last_record
        if record is None:
            return None
        if self.record is not record:  # something has made it forget
            self.recall(record)
        tensors = []
        for index in range(self.input_count):
            slot = &self.slots[index]
            if slot.is_shape_tensor:
                tensors.append(self._shape_tensor(index).clone())
            else:
                self._static_address(record, index)
                tensors.append(view_of(record.statics[index]))
        record.gave_statics = True
        return tuple(tensors)
