# cython: boundscheck=False, wraparound=False
"""A run of an engine that can be repeated without a call to TensorRT.

On a GPU it is a CUDA graph. On a CPU, where there are none, it is the context itself, left as it was set
up, so that all that surrounds graphs (keys, static buffers, eviction) runs and is tested there too.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cuda.bindings cimport cydriver
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

from trt_rt._core.driver cimport StreamOrder, check
from trt_rt._core.shape_record cimport ShapeRecord

import sys


cdef extern from "Python.h":
    PyObject* Py_True
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject* PyObject_Vectorcall(object, PyObject* const*, size_t, PyObject*) except NULL


cdef object _HOST_STREAM = 0


cdef class CapturedGraph:
    """One engine run with every address, shape and stream-ordered dependency baked in.

    The context belongs to the graph alone: "Modifying the context from which the graph was captured will
    result in undefined behavior when executing the graph" (TensorRT's developer guide, CUDA Graphs).
    """

    def __cinit__(self, context, ShapeRecord record not None):
        self.context = context
        self.execute = context.execute_async_v3
        self.record = record
        self.statics = []
        self.values = []

    cdef int set_addresses(self, const uintptr_t* addresses, Py_ssize_t count) except -1:
        self.addresses = <uintptr_t*> PyMem_Calloc(max(count, 1), sizeof(uintptr_t))
        if self.addresses == NULL:
            raise MemoryError()
        memcpy(self.addresses, addresses, count * sizeof(uintptr_t))
        self.count = count
        return 0

    def __dealloc__(self):
        PyMem_Free(self.addresses)
        # A graph in flight is freed by CUDA when it is done (cuGraphExecDestroy).
        if self.executable != NULL and sys is not None and not sys.is_finalizing():
            with nogil:
                cydriver.cuGraphExecDestroy(self.executable)

    cdef int capture(self, StreamOrder order) except -1:
        """Capture what the context enqueues now; it has run once before, as TensorRT asks."""
        cdef cydriver.CUstream stream = order.side_stream
        cdef cydriver.CUgraph graph = NULL
        cdef cydriver.CUresult result
        cdef bint succeeded = False
        order.push_context()
        try:
            # Thread-local: another thread's cudaMalloc must not break this capture, nor this one its.
            check(
                cydriver.cuStreamBeginCapture(stream, cydriver.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
                b"cuStreamBeginCapture",
            )
            try:
                succeeded = self.execute(<uintptr_t> <void*> stream) is True
            except BaseException:
                if cydriver.cuStreamEndCapture(stream, &graph) == cydriver.CUDA_SUCCESS and graph != NULL:
                    cydriver.cuGraphDestroy(graph)
                raise
            result = cydriver.cuStreamEndCapture(stream, &graph)
            if not succeeded or result != cydriver.CUDA_SUCCESS:
                if graph != NULL:
                    cydriver.cuGraphDestroy(graph)
                if succeeded:
                    check(result, b"cuStreamEndCapture")
                return 1
            result = cydriver.cuGraphInstantiate(&self.executable, graph, 0)
            cydriver.cuGraphDestroy(graph)
            check(result, b"cuGraphInstantiate")
            cydriver.cuGraphUpload(self.executable, stream)
        finally:
            order.pop_context()
        return 0

    cdef int launch(self, uintptr_t stream) except -1:
        """Repeat the run in the order of `stream`; 0, or 1 if the engine refused."""
        cdef PyObject* stack[2]
        cdef PyObject* result
        if self.executable != NULL:
            return check(
                cydriver.cuGraphLaunch(self.executable, <cydriver.CUstream> stream), b"cuGraphLaunch"
            )
        stack[1] = <PyObject*> _HOST_STREAM
        result = PyObject_Vectorcall(self.execute, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        Py_DECREF(<object> result)
        return result != Py_True
