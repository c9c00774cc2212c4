"""Runs an engine through captured graphs: finds the one for a call's addresses, or captures it."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.captured_graph cimport CapturedGraph
from trt_rt._core.output_binding cimport OutputBinding
from trt_rt._core.shape_record cimport ShapeRecord


cdef class GraphBinding(OutputBinding):
    cdef Py_ssize_t max_graphs   # 0: graphs are off
    cdef list graphs             # of CapturedGraph
    cdef CapturedGraph graph     # the one that the last call's tensors launch; None if they were copied
    cdef CapturedGraph static_graph  # the one that copies were last launched in, or None
    cdef uint64_t graph_clock
    cdef uint64_t graph_generation  # changes when all graphs are dropped
    cdef uintptr_t* wanted       # addresses of the graph that is looked for: inputs, then outputs
    cdef readonly uint64_t captures
    cdef readonly uint64_t replays

    cdef object run_graph(self, PyObject** args, object out)
    cdef CapturedGraph capture_graph(self, ShapeRecord record, const uintptr_t* addresses)
    cdef int launch_graph(self, CapturedGraph graph) except -1
    cdef int drop_graphs(self) except -1
    cdef bint has_graphs(self) except -1
    cdef void forget(self) noexcept

    cdef int _choose_graph(self, bint copies_outputs) except -1
    cdef bint _may_bake_addresses(self) except -1
    cdef CapturedGraph _find_graph(self)
    cdef int _add_graph(self, CapturedGraph graph) except -1
    cdef int _want_static_outputs(self) except -1
    cdef int _copy_inputs(self) except -1
    cdef uintptr_t _static_address(self, Py_ssize_t index) except 0
    cdef int _copy(self, uintptr_t target, uintptr_t source, size_t size) except -1
    cdef object _copied_outputs(self, PyObject** args)
    cdef object _copied_output(self, PyObject** args, Py_ssize_t output)
    cdef int _copy_to_callers(self) except -1
