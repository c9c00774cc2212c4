"""Chooses the graph that serves a call, or captures it.

A graph has the addresses of its inputs and outputs baked in. A steady loop comes with the same few addresses
again and again, so graphs are captured for callers' addresses while those are few, or have come often enough
to earn one. Of other calls, what changes is copied to and from static tensors, by nodes of the graph; fresh
outputs always are.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.dlpack import view_of
from trt_rt.errors import ExecutionError

# Upper bounds, per set of shapes, on graphs that are captured before addresses have to earn one: graphs that
# copy nothing, graphs that copy some tensors, and graphs that copy all. They hold while the cache has room:
# graphs that take each other's places would cost a capture again and again.
cdef enum:
    ADDRESS_GRAPHS = 4
    PARTLY_COPYING_GRAPHS = 2
    COPYING_GRAPHS = 2

cdef enum OutputKind:
    # Where the outputs of one call are, which decides whether a graph may have their addresses baked in.
    # `OutputPolicy` is about all calls without ``out=``.
    UNKNOWN  # no call yet
    FRESH  # new tensors: a graph copies its outputs to them
    PREALLOCATED  # tensors that are reused in turn
    CALLERS  # tensors of ``out=``


@cython.final
@cython.no_gc_clear
cdef class GraphPolicy:
    """The graphs of one executor, and which of them serves a call.

    Parameters
    ----------
    capture : EngineCapture
        Captures and launches graphs.
    inputs : InputBinding
        The inputs of the call under way.
    capacity : int
        How many graphs are kept.
    """

    cdef GraphCache cache
    cdef EngineCapture capture
    cdef CallStream stream
    cdef ExecutionContext execution
    cdef InputBinding inputs
    cdef OutputBinding outputs
    cdef SlotTable slots
    cdef ShapeRecord last_record  # of the last call
    cdef EngineGraph graph       # what a call with the last call's tensors launches; None: look for it
    cdef OutputKind output_kind  # of the last call
    cdef uintptr_t* wanted       # addresses of the graph that is looked for; 0 for what it copies

    def __cinit__(self, EngineCapture capture not None, InputBinding inputs not None, Py_ssize_t capacity):
        self.cache = GraphCache(capacity)
        self.capture = capture
        self.stream = capture.stream
        self.execution = capture.execution
        self.inputs = inputs
        self.outputs = capture.outputs
        self.slots = capture.slots
        self.wanted = <uintptr_t*> PyMem_Calloc(max(self.slots.count, 1), sizeof(uintptr_t))
        if self.wanted == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.wanted)

    cdef object run(self, PyObject** args, object out):
        """Run the engine for a call whose inputs were taken, and return its outputs."""
        cdef OutputKind kind = FRESH
        if self.inputs.record.is_data_dependent:
            raise ExecutionError(
                f"engine {self.execution.engine_name!r}: the size of an output depends on data, so it cannot "
                "be run as a CUDA graph. Leave enable_cudagraphs for this module."
            )
        if out is not None:
            kind = CALLERS
            self.outputs.buffers = None  # those of other shapes must not be taken for a later call's
            result = self.outputs.bind_callers(args, out)
        elif self.outputs.policy != FRESH_OUTPUTS:
            if self.outputs.policy == FRESH_WITH_HIDDEN_ALIASES:
                result = self.outputs.bind_returned(args, True)
            else:
                kind = PREALLOCATED
                if self.inputs.shapes_changed or self.outputs.buffers is None:
                    self.outputs.choose_buffers()
                result = self.outputs.bind_preallocated()
        else:
            result = self.outputs.bind_fresh(args, True)
        self.last_record = self.inputs.record
        if self.inputs.shapes_changed or kind != self.output_kind:
            self.graph = None
            self.output_kind = kind
        if self.graph is not None and not self.execution.is_stale:
            self._launch(self.graph)
        else:
            self._choose_graph()
        return result

    cdef inline int _launch(self, EngineGraph graph) except -1:
        self.cache.mark_used(graph)
        return self.capture.launch(graph)

    cdef int _choose_graph(self) except -1:
        """Launch the graph for the addresses of this call, or capture one, or run without."""
        cdef Py_ssize_t index
        cdef EngineGraph graph
        self.graph = None
        self._want_callers_addresses()
        graph = self._launch_or_capture(self._address_graphs())
        if graph is None and not self._meets_statics():
            graph = self._launch_or_capture_copying(ADDRESS_GRAPHS + self.outputs.ring_size)
        if graph is None:
            self._run_without_graph()
        elif graph.is_captured and graph.captured.from_callers is None:
            # A graph that copies inputs is not remembered: all its calls must pass here, where their
            # addresses are counted.
            self.graph = graph
        # What a call binds is committed when it has succeeded.
        self.execution.is_stale = False
        for index in range(self.slots.count):
            self.slots.at[index].address = self.slots.at[index].next_address
        return 0

    cdef Py_ssize_t _address_graphs(self) except -1:
        """The number of graphs of these shapes below which one for just these addresses is captured at once.
        """
        cdef AddressHistory history = self.inputs.record.history
        if history.graph_count == 0 or self._inputs_are_static():
            return history.graph_count + 1
        # The other half of the cache is for graphs that copy, of which one serves all addresses.
        return ADDRESS_GRAPHS + self.outputs.ring_size if self.cache.has_room(2) else 0

    cdef EngineGraph _launch_or_capture_copying(self, Py_ssize_t address_graphs):
        cdef EngineGraph graph
        self._copy_what_changed()
        graph = self._launch_or_capture(address_graphs + PARTLY_COPYING_GRAPHS)
        if graph is None:
            self._copy_all()
            graph = self._launch_or_capture(address_graphs + PARTLY_COPYING_GRAPHS + COPYING_GRAPHS)
        return graph

    cdef EngineGraph _launch_or_capture(self, Py_ssize_t allowed):
        """Run the graph for `wanted`, or capture it, which runs it once. None if it is not to be captured."""
        cdef ShapeRecord record = self.inputs.record
        cdef uint64_t key_hash = hash_key(record, self.wanted, self.slots.count)
        cdef EngineGraph graph = self.cache.find(key_hash, record, self.wanted)
        if graph is not None:
            self._launch(graph)
        elif (
            (record.history.graph_count < allowed and self.cache.has_room(1))
            or record.history.earns_graph(key_hash)
        ) and self.capture.is_possible():
            graph = self.capture.capture(record, self.wanted)
            if graph.is_captured:
                self._add_graph(key_hash, graph)
        return graph

    cdef int _want_callers_addresses(self) except -1:
        """Ask for a graph that reads and writes the caller's tensors, except outputs that must be copied."""
        cdef Py_ssize_t index
        for index in range(self.slots.count):
            self.wanted[index] = self.slots.at[index].next_address
            # A host tensor is written when the engine is enqueued, not when a graph is launched.
            if index >= self.slots.input_count and (
                self.output_kind == FRESH or self.slots.at[index].is_shape_tensor
            ):
                self._copy(index)
        return 0

    cdef int _copy_what_changed(self) except -1:
        """Ask for a graph that copies what has another address than at the last call that got here."""
        cdef Py_ssize_t index
        cdef uintptr_t* last = self.inputs.record.history.last
        for index in range(self.slots.count):
            if self.slots.at[index].next_address != last[index]:
                last[index] = self.slots.at[index].next_address
                self._copy(index)
        return 0

    cdef int _copy_all(self) except -1:
        """Ask for a graph that copies every tensor that can be copied."""
        cdef Py_ssize_t index
        for index in range(self.slots.count):
            self._copy(index)
        return 0

    cdef inline int _copy(self, Py_ssize_t index) except -1:
        """Ask for a graph that copies an I/O tensor, if that can be copied."""
        cdef IOSlot* slot = &self.slots.at[index]
        if index < self.slots.input_count:
            if slot.is_shape_tensor or slot.is_written:
                return 0
        elif slot.source >= 0:
            return 0
        if self.capture.size_of(self.inputs.record, index) != 0:
            self.wanted[index] = 0
        return 0

    cdef bint _inputs_are_static(self) noexcept:
        """Whether the caller has written into the static inputs, which is worth a graph at once."""
        cdef Py_ssize_t index
        cdef uintptr_t* static_addresses = self.inputs.record.static_addresses
        if self.output_kind == CALLERS:
            return False
        for index in range(self.slots.input_count):
            if self.wanted[index] != static_addresses[index] and not self.slots.at[index].is_shape_tensor:
                return False
        return self.slots.input_count != 0

    cdef bint _meets_statics(self) noexcept:
        """Whether a caller's tensor lies in a static one of another input, which a copy would overwrite.

        That is possible only if the caller has static inputs, from `graph_inputs`.
        """
        cdef Py_ssize_t index, other
        cdef uintptr_t begin, end, static_begin
        cdef ShapeRecord record = self.inputs.record
        if not record.gave_statics:
            return False
        for index in range(self.slots.count):
            begin = self.slots.at[index].next_address
            end = begin + self.capture.size_of(record, index)
            for other in range(self.slots.input_count):
                static_begin = record.static_addresses[other]
                if (
                    (other != index or begin != static_begin)
                    and begin < static_begin + self.capture.size_of(record, other)
                    and static_begin < end
                ):
                    return True
        return False

    cdef int _add_graph(self, uint64_t key_hash, EngineGraph graph) except -1:
        cdef EngineGraph oldest = self.cache.least_recent()
        if oldest is not None:
            self.stream.wait()  # its context must not go while it runs
            self.cache.remove(oldest)
            oldest.record.history.graph_count -= 1
        graph.record.history.graph_count += 1
        self.cache.add(key_hash, graph)
        return 0

    cdef int _run_without_graph(self) except -1:
        """Enqueue the engine: no graph serves this call, and none may be captured."""
        cdef Py_ssize_t index
        self.inputs.use_record(self.inputs.record)
        for index in range(self.slots.count):
            self.execution.tell_address(index)
        return self.execution.enqueue()

    cdef object static_inputs(self):
        """The static inputs of the last call's shapes, and copies of shape tensors; None before a call."""
        cdef Py_ssize_t index
        cdef ShapeRecord record = self.last_record
        if record is None:
            return None
        if self.inputs.record is not record:  # something has made it forget
            self.inputs.recall(record)
        tensors = []
        for index in range(self.slots.input_count):
            if self.slots.at[index].is_shape_tensor:
                tensors.append(self.slots.values_tensor(index).clone())
            else:
                self.capture.static_address(record, index)
                tensors.append(view_of(record.statics[index]))
        record.gave_statics = True
        return tuple(tensors)

    cdef int observe(self, observer) except -1:
        cdef EngineGraph graph
        for graph in self.cache.graphs:
            graph.observe(observer)
        return 0

    cdef bint is_empty(self) noexcept:
        """Whether there is no graph."""
        return len(self.cache.graphs) == 0

    cdef int clear(self) except -1:
        """Let go of all graphs, whose work must be done."""
        self.graph = None
        self.last_record = None
        self.cache.clear()
        return 0

    cdef void forget(self) noexcept:
        """Look for the graph of the next call anew."""
        self.graph = None
