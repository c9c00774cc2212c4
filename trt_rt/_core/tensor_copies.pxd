"""Copies between callers' tensors and those that a captured graph reads and writes."""

from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.copy_kernel cimport CopyList, TensorCopy
from trt_rt._core.io_slot cimport IOSlot


cdef class TensorCopies:
    cdef bint is_outward         # to callers' tensors, else from them
    cdef Py_ssize_t count
    cdef Py_ssize_t* indices     # of the I/O tensors
    cdef CopyList* lists
    cdef unsigned int* blocks    # per list
    cdef cydriver.CUgraphNode* nodes  # per list; NULL outside of a graph
    cdef cydriver.CUfunction kernel  # NULL: copied beside the graph

    cdef int add(self, Py_ssize_t index, uintptr_t static_address, uint64_t size) except -1
    cdef bint take_addresses(self, const IOSlot* slots) noexcept
    cdef void forget_addresses(self) noexcept
    cdef int copy(self, uintptr_t stream, bint on_cuda) except -1
    cdef int capture(self, cydriver.CUstream stream) except -1
    cdef int find_nodes(self, cydriver.CUgraph graph) except -1
    cdef int update_nodes(self, cydriver.CUgraphExec executable) except -1

    cdef Py_ssize_t _list_count(self) noexcept
    cdef TensorCopy* _of(self, Py_ssize_t position) noexcept
    cdef int _describe_node(
        self, cydriver.CUDA_KERNEL_NODE_PARAMS* node, Py_ssize_t index, void** parameters
    ) noexcept
