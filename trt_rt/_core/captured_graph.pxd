"""A run of an engine that can be repeated without a call to TensorRT."""

from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcmp

from trt_rt._core.driver cimport StreamOrder
from trt_rt._core.io_slot cimport IOSlot
from trt_rt._core.shape_record cimport ShapeRecord
from trt_rt._core.tensor_copies cimport TensorCopies


cdef class CapturedGraph:
    cdef cydriver.CUgraphExec executable  # NULL on a CPU
    cdef cydriver.CUgraph template  # what it was made of: the nodes that copy are named by those in there
    # Declared in the order in which they are released: what refers to the context, then the context.
    cdef object execute          # the context's bound method: what a replay is on a CPU
    cdef object context          # nobody else's, and not modified once captured
    cdef object workspace        # scratch memory that the graph has baked in, or None
    cdef list statics            # tensors of ours that it reads and writes
    cdef list values             # of shape tensors, which TensorRT reads when it enqueues
    cdef ShapeRecord record
    cdef uintptr_t* addresses    # callers' that it reads and writes itself, 0 for copied ones: its key
    cdef Py_ssize_t count
    cdef TensorCopies from_callers  # before the run; None: nothing is copied
    cdef TensorCopies to_callers  # after the run, on the device
    cdef TensorCopies to_host    # after the run, of outputs in host memory
    cdef bint has_copies
    cdef bint copies_beside      # some copies are no nodes of the graph
    cdef uint64_t last_used

    cdef int set_addresses(self, const uintptr_t* addresses, Py_ssize_t count) except -1
    cdef int take_addresses(self, const IOSlot* slots) except -1
    cdef int copy_now(self, uintptr_t stream, bint on_cuda, bint outward) except -1
    cdef int capture(self, StreamOrder order) except -1  # 1: the engine refused
    cdef int launch(self, uintptr_t stream) except -1

    cdef int _take_addresses(self, TensorCopies copies, const IOSlot* slots) except -1
    cdef int _enqueue(self, cydriver.CUstream stream) except -1
    cdef int _find_copies(self) except -1
    cdef int _launch_alone(self, uintptr_t stream) except -1
    cdef int _copy_beside(self, TensorCopies copies, uintptr_t stream) except -1


cdef inline bint is_for(
    CapturedGraph graph, ShapeRecord record, const uintptr_t* addresses
) noexcept:
    """Whether a graph is one of these shapes and addresses."""
    return (
        graph.record is record
        and memcmp(graph.addresses, addresses, graph.count * sizeof(uintptr_t)) == 0
    )
