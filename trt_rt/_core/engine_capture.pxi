"""Captures runs of an engine in graphs."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cuda.bindings cimport cydriver
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

from trt_rt._core.dlpack cimport DLTensor
from trt_rt._core.driver cimport is_capture_invalidated
from trt_rt._core.tensor_layout cimport layout_bytes

from functools import partial

import torch

from trt_rt._core.capture_attempts import CaptureAttempts, CaptureInvalidatedError, is_refused_operation
from trt_rt._core.garbage_collection import without_garbage_collection
from trt_rt._core.observed import unobserved
from trt_rt._core.plain_pytorch import plain_pytorch


@cython.final
@cython.no_gc_clear  # whoever owns it waits for its work before its context goes
cdef class EngineGraph:
    """One engine run with every address, shape and stream-ordered dependency baked in.

    The context belongs to the graph alone: "Modifying the context from which the graph was captured will
    result in undefined behavior when executing the graph" (TensorRT's developer guide, CUDA Graphs).

    Parameters
    ----------
    context : IExecutionContext
        Used by nothing else.
    record : ShapeRecord
        The shapes and values of the run.
    input_count, output_count : int
        Of the engine.
    """

    # Declared in the order in which they are released: what refers to the context, the context, and then
    # what its runs use.
    cdef CapturedGraph captured
    cdef object execute          # the context's bound method
    cdef object context
    cdef object workspace        # scratch memory that the graph has baked in, or None
    cdef list statics            # tensors of ours that it reads and writes
    cdef list values             # of shape tensors, which TensorRT reads when it enqueues
    cdef ShapeRecord record
    cdef uintptr_t* addresses    # of the callers' tensors that it reads and writes itself, 0 for copied ones
    cdef Py_ssize_t count
    cdef uint64_t last_used
    cdef bint is_captured        # else the run that came before the capture is all that there was

    def __cinit__(
        self, context, ShapeRecord record not None, Py_ssize_t input_count, Py_ssize_t output_count
    ):
        self.execute = context.execute_async_v3
        self.context = context
        self.captured = CapturedGraph(self.execute, input_count, output_count)
        self.record = record
        self.statics = []
        self.values = []
        self.count = input_count + output_count
        self.addresses = <uintptr_t*> PyMem_Calloc(max(self.count, 1), sizeof(uintptr_t))
        if self.addresses == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.addresses)

    cdef int observe(self, observer) except -1:
        """Let an observer see the runs on a CPU, where a launch enqueues; None: nobody any more. Idempotent.
        """
        context = unobserved(self.context)
        if observer is not None:
            context = observer.context(context)
        self.execute = context.execute_async_v3
        self.context = context
        self.captured.replay = self.execute
        return 0

    cdef inline bint is_for(self, ShapeRecord record, const uintptr_t* addresses) noexcept:
        """Whether the graph serves these shapes and addresses."""
        return (
            self.record is record
            and memcmp(self.addresses, addresses, self.count * sizeof(uintptr_t)) == 0
        )


@cython.final
@cython.no_gc_clear
cdef class EngineCapture:
    """Captures and launches runs of one executor's engine.

    Parameters
    ----------
    slots : SlotTable
        The tensors of the call under way.
    stream : CallStream
        Where runs and launches go.
    execution : ExecutionContext
        Its factory makes the graphs' contexts.
    outputs : OutputBinding
        Allocates static outputs.
    """

    cdef SlotTable slots
    cdef CallStream stream
    cdef ExecutionContext execution
    cdef OutputBinding outputs
    cdef cydriver.CUfunction copy_kernel  # NULL: copies are not nodes of graphs
    cdef object attempts         # CaptureAttempts
    cdef uint64_t captures
    cdef uint64_t replays

    def __cinit__(
        self,
        SlotTable slots not None,
        CallStream stream not None,
        ExecutionContext execution not None,
        OutputBinding outputs not None,
    ):
        self.slots = slots
        self.stream = stream
        self.execution = execution
        self.outputs = outputs
        self.attempts = CaptureAttempts(f"engine {execution.engine_name!r}")
        if stream.on_cuda:
            self.copy_kernel = copy_kernel(stream.order)

    cdef int launch(self, EngineGraph graph) except -1:
        """Run the engine by launching a graph."""
        self.replays += 1
        if not graph.captured.launch(self.stream.handle):
            self.execution.fail("execute_async_v3")
        if self.stream.is_external:
            self.stream.order.mark_done(self.stream.handle)
        return 0

    cdef bint is_possible(self) except -1:
        """Whether a run can be captured now. Asked before each capture."""
        return not self.attempts.are_over and self.execution.contexts.can_capture()

    cdef EngineGraph capture(self, ShapeRecord record, const uintptr_t* addresses):
        """Run the engine once with these addresses, in a context of the graph's own, and capture that.

        An address of 0 stands for a tensor that the graph copies. TensorRT asks for a run before the capture.
        That run is the call's own, so that state which the engine keeps in its inputs advances by one step
        and not by two. If CUDA invalidates the capture, the run has its results, and the graph is not
        captured.
        """
        cdef EngineGraph graph = EngineGraph(
            self.execution.contexts.create_for_graph(),
            record,
            self.slots.input_count,
            self.slots.output_count,
        )
        memcpy(graph.addresses, addresses, graph.count * sizeof(uintptr_t))
        graph.captured.copy_kernel = self.copy_kernel
        self._plan_copies(graph)
        self._set_up(graph)
        graph.captured.copy_before(self.stream.handle, self.stream.on_cuda)
        self.execution.enqueue_through(<PyObject*> graph.execute)
        graph.captured.copy_after(self.stream.handle, self.stream.on_cuda)
        try:
            graph.is_captured = without_garbage_collection(partial(self._enqueue_captured, graph))
        except CaptureInvalidatedError as error:
            self.attempts.note_invalidated(error)
            return graph
        finally:
            if not graph.is_captured:
                self.stream.wait_quietly()  # the context goes with the graph
        if not graph.is_captured:
            self.execution.fail("capturing execute_async_v3 in a CUDA graph")
        self.attempts.note_captured()
        self.captures += 1
        return graph

    def _enqueue_captured(self, EngineGraph graph not None):
        """Capture what the context enqueues; False if TensorRT refuses. On a CPU there is nothing to do."""
        cdef StreamOrder order = self.stream.order
        cdef cydriver.CUstream stream
        cdef bint accepted
        if not self.stream.on_cuda:
            return True
        stream = order.side_stream
        order.push_context()
        try:
            graph.captured.begin(stream)
            try:
                accepted = graph.execute(<uintptr_t> <void*> stream) is True
            except:
                graph.captured.abandon(stream)
                raise
            if accepted:
                graph.captured.end(stream)
            else:
                self._abandon(graph, stream)
            return accepted
        finally:
            order.pop_context()

    cdef int _abandon(self, EngineGraph graph, cydriver.CUstream stream) except -1:
        """End a capture in which TensorRT has refused the run. Raise if only CUDA can be the reason."""
        cdef bint is_invalidated = is_capture_invalidated(stream)
        graph.captured.abandon(stream)
        if is_invalidated:
            message = self.execution.take_error()
            if is_refused_operation(message):
                self.execution.fail_with("capturing execute_async_v3 in a CUDA graph", message)
            raise CaptureInvalidatedError(f"TensorRT says: {message}" if message else "")
        return 0

    cdef int _plan_copies(self, EngineGraph graph) except -1:
        """Let a graph copy the tensors whose address in its key is 0."""
        cdef Py_ssize_t index
        cdef uintptr_t static_address
        cdef const uintptr_t* callers_address
        cdef int64_t size
        for index in range(graph.count):
            if graph.addresses[index] != 0:
                continue
            callers_address = &self.slots.at[index].next_address
            static_address = self.static_address(graph.record, index)
            size = self.size_of(graph.record, index)
            if index < self.slots.input_count:
                graph.captured.copy_from_caller(callers_address, static_address, size)
            elif self.slots.at[index].is_shape_tensor:
                graph.captured.copy_to_host(callers_address, static_address, size)
            else:
                graph.captured.copy_to_caller(callers_address, static_address, size)
        graph.statics = [tensor for tensor in graph.record.statics if tensor is not None]
        return graph.captured.take_addresses()

    cdef int _set_up(self, EngineGraph graph) except -1:
        """Tell the graph's context all that a run needs."""
        cdef Py_ssize_t index
        cdef ShapeRecord record = graph.record
        cdef ExecutionContext own = self.execution
        context = graph.context
        if context.active_optimization_profile != record.profile:
            if context.set_optimization_profile_async(record.profile, self.stream.argument) is not True:
                own.fail(f"set_optimization_profile_async({record.profile})")
        for index in range(self.slots.input_count):
            if self.slots.at[index].is_dynamic:
                if context.set_input_shape(own.names[index], record.input_shapes[index]) is not True:
                    own.fail(f"set_input_shape({own.names[index]!r}, {record.input_shapes[index]})")
        for index in range(graph.count):
            address = graph.addresses[index] or record.static_addresses[index]
            if index < self.slots.input_count and self.slots.at[index].is_shape_tensor:
                address = self._kept_values(graph, index)
            if context.set_tensor_address(own.names[index], address) is not True:
                own.fail(f"set_tensor_address({own.names[index]!r}, {address:#x})")
        graph.workspace = own.contexts.give_graph_workspace(context, self.stream.argument)
        return 0

    cdef object _kept_values(self, EngineGraph graph, Py_ssize_t index):
        """Address of a copy of a shape tensor's values: those in the slot change with the next call."""
        with plain_pytorch():
            values = self.slots.values_tensor(index).clone()
        graph.values.append(values)
        return values.data_ptr() or <uintptr_t> self.slots.at[index].values

    cdef uintptr_t static_address(self, ShapeRecord record, Py_ssize_t index) except 0:
        """Address of the static tensor in place of a caller's, made when it is first needed."""
        cdef DLTensor tensor
        if record.static_addresses[index] == 0:
            if index >= self.slots.input_count:
                value = self.outputs.allocate_output(index - self.slots.input_count, &tensor)
            else:
                with plain_pytorch():
                    value = torch.empty(
                        record.input_shapes[index],
                        dtype=self.slots.inputs[index].dtype,
                        device=self.slots.device,
                    )
            record.set_static(index, value)
            if record.static_addresses[index] == 0:  # no elements, no memory
                record.static_addresses[index] = self.slots.placeholder_address
        return record.static_addresses[index]

    cdef int64_t size_of(self, ShapeRecord record, Py_ssize_t index) noexcept:
        """Bytes of an I/O tensor, for the shapes of this call, which are the record's."""
        if index < self.slots.input_count:
            return layout_bytes(&self.slots.at[index].layout)
        return layout_bytes(&record.outputs[index - self.slots.input_count])
