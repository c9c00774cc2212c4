"""Runs an engine through captured graphs: finds the one for a call's addresses, or captures it."""

from cpython.object cimport PyObject
from cuda.bindings cimport cydriver
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from trt_rt._core.captured_graph cimport CapturedGraph
from trt_rt._core.graph_cache cimport GraphCache
from trt_rt._core.output_binding cimport OutputBinding
from trt_rt._core.shape_record cimport ShapeRecord
from trt_rt._core.tensor_copies cimport TensorCopies


cdef class GraphBinding(OutputBinding):
    cdef Py_ssize_t max_graphs   # 0: graphs are off
    cdef GraphCache graphs
    cdef cydriver.CUfunction copy_kernel  # NULL: copies are no nodes of graphs
    cdef ShapeRecord last_record  # of the last call through a graph
    cdef CapturedGraph graph     # what a call with the last call's tensors launches; None: look for it
    cdef int output_kind         # of the last call
    cdef uintptr_t* wanted       # addresses of the graph that is looked for; 0 for what it copies
    cdef readonly uint64_t captures
    cdef readonly uint64_t replays

    cdef int allow_graphs(self, Py_ssize_t max_graphs) except -1
    cdef object run_graph(self, PyObject** args, object out)
    cdef CapturedGraph capture_graph(self, ShapeRecord record, const uintptr_t* addresses)
    cdef int launch_graph(self, CapturedGraph graph) except -1
    cdef int drop_graphs(self) except -1
    cdef bint has_graphs(self) except -1
    cdef void forget(self) noexcept

    cdef int _choose_graph(self) except -1
    cdef Py_ssize_t _address_graphs(self) except -1
    cdef CapturedGraph _launch_or_capture_copying(self, Py_ssize_t address_graphs)
    cdef CapturedGraph _launch_or_capture(self, Py_ssize_t allowed)
    cdef int _want_callers_addresses(self) except -1
    cdef int _copy_what_changed(self) except -1
    cdef int _copy_all(self) except -1
    cdef int _copy(self, Py_ssize_t index) except -1
    cdef int64_t _size_of(self, ShapeRecord record, Py_ssize_t index) noexcept
    cdef bint _meets_statics(self) noexcept
    cdef bint _inputs_are_static(self) noexcept
    cdef int _add_graph(self, uint64_t key_hash, CapturedGraph graph) except -1
    cdef TensorCopies _copies_for(self, CapturedGraph graph, Py_ssize_t index)
    cdef TensorCopies _new_copies(self, Py_ssize_t capacity, bint is_outward)
    cdef int _run_without_graph(self) except -1
    cdef object _bind_copied_outputs(self, PyObject** args)
    cdef object _bind_copied_output(self, PyObject** args, Py_ssize_t output)
    cdef uintptr_t _static_address(self, ShapeRecord record, Py_ssize_t index) except 0
