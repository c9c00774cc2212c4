# cython: boundscheck=False, wraparound=False
"""A run of an engine that can be repeated without a call to TensorRT.

On a GPU it is a CUDA graph. On a CPU, where there are none, it is the context itself, left as it was set
up, so that all that surrounds graphs (keys, static buffers, eviction) runs and is tested there too.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cuda.bindings cimport cydriver
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

from trt_rt._core.driver cimport StreamOrder, check
from trt_rt._core.io_slot cimport IOSlot
from trt_rt._core.shape_record cimport ShapeRecord
from trt_rt._core.tensor_copies cimport TensorCopies

import sys


cdef extern from "Python.h":
    PyObject* Py_True
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject* PyObject_Vectorcall(object, PyObject* const*, size_t, PyObject*) except NULL


cdef object _HOST_STREAM = 0


@cython.no_gc_clear  # whoever owns it waits for its work before its context goes
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
        if sys is None or sys.is_finalizing():
            return
        with nogil:
            if self.executable != NULL:
                cydriver.cuGraphExecDestroy(self.executable)
            if self.template != NULL:
                cydriver.cuGraphDestroy(self.template)

    cdef int take_addresses(self, const IOSlot* slots) except -1:
        """Copy from and to the tensors of this call in the next launch."""
        if self.from_callers is not None:
            self._take_addresses(self.from_callers, slots)
        if self.to_callers is not None:
            self._take_addresses(self.to_callers, slots)
        if self.to_host is not None:
            self.to_host.take_addresses(slots)
        return 0

    cdef int _take_addresses(self, TensorCopies copies, const IOSlot* slots) except -1:
        cdef bint succeeded = False
        if not copies.take_addresses(slots) or copies.nodes[0] == NULL:
            return 0
        try:
            copies.update_nodes(self.executable)
            succeeded = True
        finally:
            if not succeeded:
                copies.forget_addresses()
        return 0

    cdef int capture(self, StreamOrder order) except -1:
        """Capture what the context enqueues now; it has run once before, as TensorRT asks."""
        cdef cydriver.CUstream stream = order.side_stream
        cdef cydriver.CUresult result
        cdef bint refused = True
        order.push_context()
        try:
            # Thread-local: another thread's cudaMalloc must not break this capture, nor this one its.
            check(
                cydriver.cuStreamBeginCapture(stream, cydriver.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
                b"cuStreamBeginCapture",
            )
            try:
                refused = self._enqueue(stream)
            finally:
                result = cydriver.cuStreamEndCapture(stream, &self.template)
            if refused:
                return 1
            check(result, b"cuStreamEndCapture")
            check(cydriver.cuGraphInstantiate(&self.executable, self.template, 0), b"cuGraphInstantiate")
            self._find_copies()
            cydriver.cuGraphUpload(self.executable, stream)
        finally:
            order.pop_context()
        return 0

    cdef int _enqueue(self, cydriver.CUstream stream) except -1:
        """Copies and the run, in this order; 1 if the engine refuses."""
        if self.from_callers is not None and self.from_callers.kernel != NULL:
            self.from_callers.capture(stream)
        if self.execute(<uintptr_t> <void*> stream) is not True:
            return 1
        if self.to_callers is not None and self.to_callers.kernel != NULL:
            self.to_callers.capture(stream)
        return 0

    cdef int _find_copies(self) except -1:
        if self.from_callers is not None and self.from_callers.kernel != NULL:
            self.from_callers.find_nodes(self.template)
        if self.to_callers is not None and self.to_callers.kernel != NULL:
            self.to_callers.find_nodes(self.template)
        return 0

    cdef int launch(self, uintptr_t stream) except -1:
        """Repeat the run in the order of `stream`; 0, or 1 if the engine refused."""
        if not self.copies_beside:
            return self._launch_alone(stream)
        self._copy_beside(self.from_callers, stream)
        if self._launch_alone(stream):
            return 1
        self._copy_beside(self.to_callers, stream)
        if self.to_host is not None:  # what follows from shapes and values was written at the capture
            self.to_host.copy(stream, False)
        return 0

    cdef int _launch_alone(self, uintptr_t stream) except -1:
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

    cdef int copy_now(self, uintptr_t stream, bint on_cuda, bint outward) except -1:
        """What belongs before a run, or after it, without a graph."""
        if outward:
            if self.to_callers is not None:
                self.to_callers.copy(stream, on_cuda)
            if self.to_host is not None:
                self.to_host.copy(stream, on_cuda)
        elif self.from_callers is not None:
            self.from_callers.copy(stream, on_cuda)
        return 0

    cdef int _copy_beside(self, TensorCopies copies, uintptr_t stream) except -1:
        if copies is not None and copies.kernel == NULL:
            copies.copy(stream, self.executable != NULL)
        return 0
