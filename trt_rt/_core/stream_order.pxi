"""How work on one CUDA stream is ordered after work on another."""

cimport cython
from cuda.bindings cimport cydriver
from libc.stdint cimport uintptr_t

from trt_rt._core.driver cimport check

import sys

import torch

from trt_rt.errors import BackendError

cdef extern from *:
    """
    static thread_local bool trt_rt_has_context = false;
    """
    bint _has_context "trt_rt_has_context"  # need_context has seen a current CUDA context in this thread


cdef inline int need_context() except -1:
    """Make sure that the calling thread has a current CUDA context.

    PyTorch makes one current with a thread's first work on the GPU. If that work is a call of an engine,
    there is none yet, and cuGraphExecKernelNodeSetParams ends the process.
    """
    return 0 if _has_context else _make_context_current()


cdef int _make_context_current() except -1:
    """Use the context of PyTorch's current device, so that the thread's current device does not change."""
    global _has_context
    cdef cydriver.CUcontext context = NULL
    cdef cydriver.CUdevice device
    check(cydriver.cuCtxGetCurrent(&context), b"cuCtxGetCurrent")
    if context == NULL:
        check(cydriver.cuDeviceGet(&device, torch.cuda.current_device()), b"cuDeviceGet")
        # Never released: the thread keeps it to its end.
        check(cydriver.cuDevicePrimaryCtxRetain(&context, device), b"cuDevicePrimaryCtxRetain")
        check(cydriver.cuCtxSetCurrent(context), b"cuCtxSetCurrent")
    _has_context = True
    return 0


cdef inline bint is_capturing(uintptr_t stream) except -1:
    """Whether a CUDA graph is being captured on the stream."""
    cdef cydriver.CUstreamCaptureStatus status = cydriver.CU_STREAM_CAPTURE_STATUS_NONE
    if stream <= 2:  # the legacy and per-thread default streams cannot be captured by their handles
        return False
    check(cydriver.cuStreamIsCapturing(<cydriver.CUstream> stream, &status), b"cuStreamIsCapturing")
    return status != cydriver.CU_STREAM_CAPTURE_STATUS_NONE


cdef inline bint is_external(uintptr_t stream, int device_index) except -1:
    """Whether a stream, which is current, is not PyTorch's own. Its owner may destroy it after a call."""
    # For a stream that it did not make, PyTorch uses the handle as the id.
    return stream != 0 and torch.cuda.current_stream(device_index).stream_id == stream


@cython.final
cdef class StreamOrder:
    """The side stream, events and CUDA context of one executor on a GPU.

    TensorRT synchronises with the host when it is given the legacy default stream. Work from there goes
    through the side stream, with an event before and after it.

    Parameters
    ----------
    device_index : int
        CUDA ordinal of the engine's device.
    """

    cdef cydriver.CUcontext context
    cdef cydriver.CUstream side_stream
    cdef cydriver.CUevent entry_event
    cdef cydriver.CUevent exit_event
    cdef cydriver.CUevent done_event

    def __cinit__(self, int device_index):
        cdef cydriver.CUdevice device
        try:
            check(cydriver.cuInit(0), b"cuInit")
        except RuntimeError as error:
            raise BackendError(f"CUDA cannot be used: {error}") from None
        check(cydriver.cuDeviceGet(&device, device_index), b"cuDeviceGet")
        # PyTorch uses the primary context and keeps it for the life of the process; so it is not released.
        check(cydriver.cuDevicePrimaryCtxRetain(&self.context, device), b"cuDevicePrimaryCtxRetain")
        self.push_context()
        try:
            self._create()
        finally:
            self.pop_context()

    def _create(self):
        check(
            cydriver.cuStreamCreate(&self.side_stream, cydriver.CU_STREAM_NON_BLOCKING), b"cuStreamCreate"
        )
        check(cydriver.cuEventCreate(&self.entry_event, cydriver.CU_EVENT_DISABLE_TIMING), b"cuEventCreate")
        check(cydriver.cuEventCreate(&self.exit_event, cydriver.CU_EVENT_DISABLE_TIMING), b"cuEventCreate")
        check(cydriver.cuEventCreate(&self.done_event, cydriver.CU_EVENT_DISABLE_TIMING), b"cuEventCreate")

    def __dealloc__(self):
        # After finalisation has begun the driver may be gone, and the process frees everything anyway.
        if sys is None or sys.is_finalizing():
            return
        with nogil:
            if self.entry_event != NULL:
                cydriver.cuEventDestroy(self.entry_event)
            if self.exit_event != NULL:
                cydriver.cuEventDestroy(self.exit_event)
            if self.done_event != NULL:
                cydriver.cuEventDestroy(self.done_event)
            if self.side_stream != NULL:
                cydriver.cuStreamDestroy(self.side_stream)

    cdef int enter_side_stream(self) except -1:
        """Make the side stream wait for all that the legacy default stream has been given."""
        cdef cydriver.CUstream legacy = <cydriver.CUstream> <uintptr_t> 1  # CU_STREAM_LEGACY
        check(cydriver.cuEventRecord(self.entry_event, legacy), b"cuEventRecord")
        return check(cydriver.cuStreamWaitEvent(self.side_stream, self.entry_event, 0), b"cuStreamWaitEvent")

    cdef int leave_side_stream(self) except -1:
        """Make the legacy default stream wait for all that the side stream has been given."""
        cdef cydriver.CUstream legacy = <cydriver.CUstream> <uintptr_t> 1
        check(cydriver.cuEventRecord(self.exit_event, self.side_stream), b"cuEventRecord")
        return check(cydriver.cuStreamWaitEvent(legacy, self.exit_event, 0), b"cuStreamWaitEvent")

    cdef int mark_done(self, uintptr_t stream) except -1:
        """Remember all that an external `stream` has been given; what is being captured has not run."""
        if is_capturing(stream):
            return 0
        return check(cydriver.cuEventRecord(self.done_event, <cydriver.CUstream> stream), b"cuEventRecord")

    cdef int follow(self, uintptr_t earlier, bint is_external, uintptr_t later) except -1:
        """Order `later` after all that `earlier` has been given.

        Nothing is done while either is being captured: an event would tie the capture to work outside
        of it, which CUDA refuses, and a captured call is ordered by whoever replays the graph.
        """
        if is_capturing(later):
            return 0
        self.push_context()  # handle 0 is the default stream of the context that is current
        try:
            if not self._record_last_work(earlier, is_external):
                return 0
            return check(
                cydriver.cuStreamWaitEvent(<cydriver.CUstream> later, self.done_event, 0),
                b"cuStreamWaitEvent",
            )
        finally:
            self.pop_context()

    cdef bint _record_last_work(self, uintptr_t stream, bint is_external) except -1:
        """Make `done_event` stand for the last work of `stream`; False if that was captured, and not run.

        An external stream may have been destroyed since, and its handle must not be touched; but its last
        call has been marked. PyTorch never destroys its own.
        """
        if is_external:
            return True
        if is_capturing(stream):
            return False
        check(cydriver.cuEventRecord(self.done_event, <cydriver.CUstream> stream), b"cuEventRecord")
        return True

    cdef bint has_other_context(self) except -1:
        """Whether the thread's current context is not the engine's device's."""
        cdef cydriver.CUcontext current = NULL
        check(cydriver.cuCtxGetCurrent(&current), b"cuCtxGetCurrent")
        return current != self.context

    cdef int push_context(self) except -1:
        return check(cydriver.cuCtxPushCurrent(self.context), b"cuCtxPushCurrent")

    cdef int pop_context(self) except -1:
        cdef cydriver.CUcontext popped = NULL
        return check(cydriver.cuCtxPopCurrent(&popped), b"cuCtxPopCurrent")

    cdef int wait_for(self, uintptr_t stream, bint is_external) except -1:
        """Block until `stream` has done its work, so that what an executor owns can be freed."""
        cdef cydriver.CUresult result
        self.push_context()
        try:
            if not self._record_last_work(stream, is_external):
                return 0
            with nogil:
                result = cydriver.cuEventSynchronize(self.done_event)
            return check(result, b"cuEventSynchronize")
        finally:
            self.pop_context()
