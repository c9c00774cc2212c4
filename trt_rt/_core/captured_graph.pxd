"""A run of an engine that can be repeated without a call to TensorRT."""

from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcmp

from trt_rt._core.driver cimport StreamOrder
from trt_rt._core.shape_record cimport ShapeRecord


cdef class CapturedGraph:
    cdef cydriver.CUgraphExec executable  # NULL on a CPU
    # Declared in the order in which they are released: what refers to the context, then the context.
    cdef object execute          # the context's bound method: what a replay is on a CPU
    cdef object context          # nobody else's, and not modified once captured
    cdef object workspace        # scratch memory that the graph has baked in, or None
    cdef list statics            # tensors of ours that it reads and writes
    cdef list values             # of shape tensors, which TensorRT reads when it enqueues
    cdef ShapeRecord record
    cdef uintptr_t* addresses    # inputs, then outputs
    cdef Py_ssize_t count
    cdef bint is_static          # its inputs are `record.static_inputs`
    cdef uint64_t last_used

    cdef int set_addresses(self, const uintptr_t* addresses, Py_ssize_t count) except -1
    cdef int capture(self, StreamOrder order) except -1  # 1: the engine refused
    cdef int launch(self, uintptr_t stream) except -1


cdef inline bint is_for(
    CapturedGraph graph, ShapeRecord record, const uintptr_t* addresses
) noexcept:
    """Whether a graph is one of these shapes and addresses; most are told apart by the first address."""
    return (
        graph.record is record
        and graph.addresses[0] == addresses[0]
        and memcmp(graph.addresses, addresses, graph.count * sizeof(uintptr_t)) == 0
    )
