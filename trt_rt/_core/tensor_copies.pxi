"""Copies between callers' tensors and the static ones that a captured graph reads and writes.

Inside a graph they are nodes, which get the addresses of each call before the launch. That is less work than
separate copies. Beside a graph, and on a CPU, they are done one by one.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from trt_rt._core.driver cimport check


@cython.final
cdef class TensorCopies:
    """Copies in one direction between callers' tensors and static ones.

    A caller's tensor is given by a pointer to the variable that holds its address at each call, so that any
    list of tensors can be copied. Node copies need addresses that are multiples of 16.

    Parameters
    ----------
    capacity : int
        How many at most.
    is_outward : bool
        Whether they go to callers' tensors, or come from them.
    """

    cdef bint is_outward         # to callers' tensors, else from them
    cdef Py_ssize_t count
    cdef const uintptr_t** callers  # where the address of each caller's tensor is found
    cdef CopyList* lists
    cdef unsigned int* blocks    # per list
    cdef cydriver.CUgraphNode* nodes  # per list, in the captured graph; NULL outside one
    cdef cydriver.CUfunction kernel  # NULL: copied beside the graph

    def __cinit__(self, Py_ssize_t capacity, bint is_outward):
        cdef Py_ssize_t lists = (capacity + COPIES_PER_LAUNCH - 1) // COPIES_PER_LAUNCH
        self.is_outward = is_outward
        self.callers = <const uintptr_t**> PyMem_Calloc(max(capacity, 1), sizeof(uintptr_t*))
        self.lists = <CopyList*> PyMem_Calloc(max(lists, 1), sizeof(CopyList))
        self.blocks = <unsigned int*> PyMem_Calloc(max(lists, 1), sizeof(unsigned int))
        self.nodes = <cydriver.CUgraphNode*> PyMem_Calloc(max(lists, 1), sizeof(cydriver.CUgraphNode))
        if (
            self.callers == NULL
            or self.lists == NULL
            or self.blocks == NULL
            or self.nodes == NULL
        ):
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self.callers)
        PyMem_Free(self.lists)
        PyMem_Free(self.blocks)
        PyMem_Free(self.nodes)

    cdef int add(self, const uintptr_t* callers_address, uintptr_t static_address, uint64_t size) except -1:
        """Copy `size` bytes between a static tensor and the one whose address `callers_address` points to."""
        cdef TensorCopy* copy = self._of(self.count)
        cdef Py_ssize_t in_list = self.count // COPIES_PER_LAUNCH
        self.callers[self.count] = callers_address
        copy.size = size
        if self.is_outward:
            copy.source = static_address
        else:
            copy.target = static_address
        self.blocks[in_list] = max(self.blocks[in_list], blocks_for(size))
        self.count += 1
        return 0

    cdef inline TensorCopy* _of(self, Py_ssize_t position) noexcept:
        return &self.lists[position // COPIES_PER_LAUNCH].copies[position % COPIES_PER_LAUNCH]

    cdef bint take_addresses(self) noexcept:
        """Copy the tensors of this call from now on; whether any has another address than before."""
        cdef Py_ssize_t position
        cdef TensorCopy* copy
        cdef uint64_t address
        cdef bint changed = False
        for position in range(self.count):
            copy = self._of(position)
            address = self.callers[position][0]
            if self.is_outward:
                changed |= copy.target != address
                copy.target = address
            else:
                changed |= copy.source != address
                copy.source = address
        return changed

    cdef bint has_addresses(self, const uintptr_t* addresses) noexcept:
        """Whether the tensors of this call lie at these addresses, one for each copy."""
        cdef Py_ssize_t position
        for position in range(self.count):
            if self._callers_address(position) != addresses[position]:
                return False
        return True

    cdef void write_addresses(self, uintptr_t* addresses, Py_ssize_t begin, Py_ssize_t end) noexcept:
        """Note where the tensors of this call lie, from one position to another."""
        cdef Py_ssize_t position
        for position in range(begin, end):
            addresses[position] = self._callers_address(position)

    cdef inline uintptr_t _callers_address(self, Py_ssize_t position) noexcept:
        cdef const TensorCopy* copy = self._of(position)
        return copy.target if self.is_outward else copy.source

    cdef void forget_addresses(self) noexcept:
        """Take the addresses of the next call for others than those of this one."""
        cdef Py_ssize_t position
        for position in range(self.count):
            if self.is_outward:
                self._of(position).target = 0
            else:
                self._of(position).source = 0

    cdef int copy(self, uintptr_t stream, bint on_cuda) except -1:
        """Copy now; on a CUDA device, in the order of `stream`."""
        cdef Py_ssize_t position
        cdef TensorCopy* copy
        for position in range(self.count):
            copy = self._of(position)
            if copy.source == copy.target:
                continue
            if on_cuda:
                check(
                    cydriver.cuMemcpyAsync(
                        copy.target, copy.source, copy.size, <cydriver.CUstream> stream
                    ),
                    b"cuMemcpyAsync",
                )
            else:
                memcpy(<void*> <uintptr_t> copy.target, <const void*> <uintptr_t> copy.source, copy.size)
        return 0

    cdef int capture(self, cydriver.CUstream stream) except -1:
        """Become nodes of the graph that is being captured on `stream`."""
        cdef Py_ssize_t index
        cdef cydriver.CUDA_KERNEL_NODE_PARAMS node
        cdef void* parameters[1]
        for index in range(self.list_count()):
            self._describe_node(&node, index, parameters)
            check(
                cydriver.cuLaunchKernel(
                    node.func,
                    node.gridDimX, node.gridDimY, node.gridDimZ,
                    node.blockDimX, node.blockDimY, node.blockDimZ,
                    0, stream, parameters, NULL,
                ),
                b"cuLaunchKernel",
            )
        return 0

    cdef int find_nodes(self, cydriver.CUgraph graph) except -1:
        """Find the nodes that `capture` made in a captured graph, by their kernel and its first addresses."""
        cdef size_t count = 0
        cdef Py_ssize_t each
        cdef Py_ssize_t index
        cdef cydriver.CUDA_KERNEL_NODE_PARAMS node
        cdef cydriver.CUgraphNodeType kind
        cdef cydriver.CUgraphNode* nodes
        check(cydriver.cuGraphGetNodes(graph, NULL, &count), b"cuGraphGetNodes")
        nodes = <cydriver.CUgraphNode*> PyMem_Calloc(count + 1, sizeof(cydriver.CUgraphNode))
        if nodes == NULL:
            raise MemoryError()
        try:
            check(cydriver.cuGraphGetNodes(graph, nodes, &count), b"cuGraphGetNodes")
            for each in range(<Py_ssize_t> count):
                check(cydriver.cuGraphNodeGetType(nodes[each], &kind), b"cuGraphNodeGetType")
                if kind != cydriver.CU_GRAPH_NODE_TYPE_KERNEL:
                    continue
                memset(&node, 0, sizeof(node))
                if (
                    cydriver.cuGraphKernelNodeGetParams(nodes[each], &node) != cydriver.CUDA_SUCCESS
                    or node.func != self.kernel
                    or node.kernelParams == NULL
                ):
                    continue
                for index in range(self.list_count()):
                    if memcmp(node.kernelParams[0], &self.lists[index], sizeof(TensorCopy)) == 0:
                        self.nodes[index] = nodes[each]
        finally:
            PyMem_Free(nodes)
        for index in range(self.list_count()):
            if self.nodes[index] == NULL:
                raise RuntimeError("a captured graph lacks the copies that were captured in it")
        return 0

    cdef int update_nodes(
        self, cydriver.CUgraphExec executable, uintptr_t* addresses, bint* is_off
    ) except -1:
        """Give the nodes of an executable the addresses of this call.

        Parameters
        ----------
        addresses
            For each copy, the caller's address that the executable has; 0 if it is not known. Written.
        is_off
            For each node, whether it is disabled in the executable. Written.
        """
        cdef Py_ssize_t index, begin, end
        cdef cydriver.CUDA_KERNEL_NODE_PARAMS node
        cdef void* parameters[1]
        cdef bint has_work
        for index in range(self.list_count()):
            begin, end = index * COPIES_PER_LAUNCH, min(self.count, (index + 1) * COPIES_PER_LAUNCH)
            has_work = self._has_work(begin, end)
            memset(&addresses[begin], 0, (end - begin) * sizeof(uintptr_t))  # until it has succeeded
            if has_work:
                self._describe_node(&node, index, parameters)
                check(
                    cydriver.cuGraphExecKernelNodeSetParams(executable, self.nodes[index], &node),
                    b"cuGraphExecKernelNodeSetParams",
                )
            if is_off[index] == has_work:
                check(
                    cydriver.cuGraphNodeSetEnabled(executable, self.nodes[index], has_work),
                    b"cuGraphNodeSetEnabled",
                )
                is_off[index] = not has_work
            self.write_addresses(addresses, begin, end)
        return 0

    cdef bint _has_work(self, Py_ssize_t begin, Py_ssize_t end) noexcept:
        """Whether some copies copy anything: a caller may pass the static tensors themselves."""
        cdef Py_ssize_t position
        cdef const TensorCopy* copy
        for position in range(begin, end):
            copy = self._of(position)
            if copy.source != copy.target:
                return True
        return False

    cdef Py_ssize_t list_count(self) noexcept:
        return (self.count + COPIES_PER_LAUNCH - 1) // COPIES_PER_LAUNCH

    cdef int _describe_node(
        self, cydriver.CUDA_KERNEL_NODE_PARAMS* node, Py_ssize_t index, void** parameters
    ) noexcept:
        memset(node, 0, sizeof(node[0]))
        parameters[0] = &self.lists[index]
        node.func = self.kernel
        node.gridDimX = self.blocks[index]
        node.gridDimY = <unsigned int> min(self.count - index * COPIES_PER_LAUNCH, COPIES_PER_LAUNCH)
        node.gridDimZ = 1
        node.blockDimX = COPY_THREADS
        node.blockDimY = node.blockDimZ = 1
        node.kernelParams = parameters
        return 0
