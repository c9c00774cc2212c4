# cython: language_level=3, freethreading_compatible=True, embedsignature=True, annotation_typing=False
"""Single calls of the CUDA driver with as little as there can be around them: floors for graphs."""

from cuda.bindings cimport cydriver


cdef int _check(cydriver.CUresult result, str call) except -1:
    if result != cydriver.CUDA_SUCCESS:
        raise RuntimeError(f"{call} failed: CUDA error {<int> result}")
    return 0


cdef class GraphLaunch:
    """``cuGraphLaunch`` of one enqueue of an execution context.

    Parameters
    ----------
    context : IExecutionContext
        Of the null engine, on the current CUDA device.
    stream : int
        Where it is launched.
    """

    cdef cydriver.CUgraphExec executable
    cdef cydriver.CUstream stream

    def __cinit__(self, context, size_t stream):
        cdef cydriver.CUstream capturing = NULL
        cdef cydriver.CUgraph graph = NULL
        self.stream = <cydriver.CUstream> stream
        _check(cydriver.cuStreamCreate(&capturing, cydriver.CU_STREAM_NON_BLOCKING), "cuStreamCreate")
        _check(
            cydriver.cuStreamBeginCapture(capturing, cydriver.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
            "cuStreamBeginCapture",
        )
        context.execute_async_v3(<size_t> capturing)
        _check(cydriver.cuStreamEndCapture(capturing, &graph), "cuStreamEndCapture")
        _check(cydriver.cuGraphInstantiate(&self.executable, graph, 0), "cuGraphInstantiate")
        _check(cydriver.cuGraphDestroy(graph), "cuGraphDestroy")
        _check(cydriver.cuStreamDestroy(capturing), "cuStreamDestroy")

    def __dealloc__(self):
        if self.executable != NULL:
            cydriver.cuGraphExecDestroy(self.executable)

    def launch(self):
        """One launch."""
        _check(cydriver.cuGraphLaunch(self.executable, self.stream), "cuGraphLaunch")


cdef class AsyncCopy:
    """``cuMemcpyAsync`` between two tensors of one size on a device."""

    cdef cydriver.CUdeviceptr target
    cdef cydriver.CUdeviceptr source
    cdef size_t size
    cdef cydriver.CUstream stream
    cdef object held

    def __cinit__(self, target, source, size_t stream):
        self.held = (target, source)
        self.target = target.data_ptr()
        self.source = source.data_ptr()
        self.size = source.nbytes
        self.stream = <cydriver.CUstream> stream

    def copy(self):
        """One copy."""
        _check(cydriver.cuMemcpyAsync(self.target, self.source, self.size, self.stream), "cuMemcpyAsync")
