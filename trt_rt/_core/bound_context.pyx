# cython: boundscheck=False, wraparound=False
"""An execution context together with what it holds: shapes, addresses, profile, stream.

Every call to TensorRT that a run makes is here, and every return value is checked here.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_Get
from cpython.ref cimport Py_DECREF
from cpython.weakref cimport PyWeakref_NewRef
from libc.stdint cimport uintptr_t

from trt_rt._core.dlpack cimport DL_CPU, DL_CUDA, current_stream, dtype_code, pack_device, torch_exchange_api
from trt_rt._core.driver cimport is_capturing, need_context
from trt_rt._core.io_slot cimport IOSlot

import sys
import warnings

import torch

from trt_rt.errors import ExecutionError

cdef extern from "Python.h":
    PyObject* Py_True
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject* PyObject_Vectorcall(object, PyObject* const*, size_t, PyObject*) except NULL


class _Nothing:
    """Something to have been."""


cdef object _GONE = PyWeakref_NewRef(_Nothing(), None)  # to what is no more: no tensor is its referent

cdef bint _safe_mode = False
cdef bint _has_warned = False


def set_multi_device_safe_mode(bint enabled):
    """Let calls make their engine's device current, for every engine of the process; see `trt_rt.runtime`."""
    global _safe_mode, _has_warned
    _safe_mode = enabled
    _has_warned = False


def multi_device_safe_mode():
    """Whether calls make their engine's device current."""
    return _safe_mode


@cython.no_gc_clear  # to wait for the last work needs members that would be gone
cdef class BoundContext:
    """An execution context, and what it has been told. A context belongs to one stream at a time."""

    def __cinit__(self, contexts, tuple inputs, tuple outputs, *args, **kwargs):
        self.input_count = len(inputs)
        self.output_count = len(outputs)
        self.slots = <IOSlot*> PyMem_Calloc(max(self.input_count + self.output_count, 1), sizeof(IOSlot))
        if self.slots == NULL:
            raise MemoryError()
        self.profile = -1
        self.previous_device = -1

    def __init__(self, contexts, tuple inputs, tuple outputs, *, device, name, take_error):
        cdef Py_ssize_t index
        self.api = torch_exchange_api()
        self.contexts = contexts
        self.inputs = inputs
        self.outputs = outputs
        self.names = tuple(tensor.name for tensor in (*inputs, *outputs))
        self.references = [None] * len(self.names)
        self.context_shapes = [None] * self.input_count
        self.allocators = [None] * self.output_count
        self.name = name
        self.take_error = take_error
        self.device = device
        self.on_cuda = device.type == "cuda"
        self.device_index = device.index or 0
        self.stream_handle = 0
        self.stream_argument = <PyObject*> self.stream_handle
        self.temporaries = []
        if self.on_cuda:
            self.order = StreamOrder(self.device_index)
        for index, tensor in enumerate((*inputs, *outputs)):
            self._describe(&self.slots[index], tensor)
        self.use_context()

    cdef int _describe(self, IOSlot* slot, tensor) except -1:
        slot.layout.dtype = dtype_code(tensor.dtype)
        slot.layout.ndim = -1
        slot.is_shape_tensor = tensor.is_shape_tensor
        slot.is_dynamic = tensor.is_dynamic
        if self.on_cuda and not tensor.is_shape_tensor:
            slot.layout.device = pack_device(DL_CUDA, self.device_index)
        else:
            slot.layout.device = pack_device(DL_CPU, 0)
        return 0

    def __dealloc__(self):
        cdef Py_ssize_t index
        self.wait_quietly()
        if self.slots != NULL:
            for index in range(self.input_count):
                PyMem_Free(self.slots[index].values)
        PyMem_Free(self.slots)

    cdef void wait_quietly(self) noexcept:
        """Wait for the last work: whatever a context owns is freed with it.

        When the interpreter is going away, the driver may be too, and the process frees everything.
        """
        if self.order is not None and self.has_stream and sys is not None and not sys.is_finalizing():
            try:
                self.order.wait_for(self.stream, self.on_external_stream)
            except Exception:  # no one is left to tell
                pass

    cdef int use_context(self) except -1:
        """Make sure that there is a context: a mutator may have dropped it."""
        if self.context is None:
            context, self.shares_workspace = self.contexts.create()
            self.execute = context.execute_async_v3
            self.set_address = context.set_tensor_address
            self.set_shape = context.set_input_shape
            self.context = context
        return 0

    cdef int drop_context(self) except -1:
        """Wait for the last call's work, and let go of the context; the next call makes another."""
        try:
            if self.has_stream:
                self.order.wait_for(self.stream, self.on_external_stream)
        finally:
            self.execute = self.set_address = self.set_shape = self.context = None
            self.allocators = [None] * self.output_count
            self.workspace = None
            self.forget()
        return 0

    cdef int wait_for_lock(self) except -1:
        if self.lock_owner == PyThreadState_Get():
            raise ExecutionError(
                f"engine {self.name!r} was called from within its own call (by a finalizer or a callback)."
            )
        with nogil:
            self.lock.lock()
        return 0

    cdef uintptr_t callers_stream(self) except? 1:
        """The calling thread's current stream; 0 on a CPU."""
        return current_stream(self.api, self.device_index) if self.on_cuda else 0

    cdef int use_stream(self, uintptr_t stream) except -1:
        """Enqueue to the caller's current stream from here on."""
        need_context()
        if stream != self.stream or not self.has_stream:
            self.change_stream(stream)
        # The default stream belongs to the current context, so it needs the right one even on one GPU.
        if (_safe_mode or self.on_side_stream) and self.order.has_other_context():
            self.enter_device()
        return 0

    cdef int enter_device(self) except -1:
        """Make the engine's device current for this call, if that is allowed."""
        global _has_warned
        current = torch.cuda.current_device()
        if current != self.device_index:
            if not _safe_mode:
                raise ExecutionError(
                    f"engine {self.name!r} is on {self.device}, but the current device is cuda:{current}. "
                    f"Call it under torch.cuda.device({self.device_index}), or call "
                    "set_multi_device_safe_mode(True)."
                )
            if not _has_warned:
                _has_warned = True
                warnings.warn(
                    f"engine {self.name!r} is on {self.device}, but the current device is cuda:{current}: "
                    "multi-device safe mode switches for each such call, which costs time. Call it under "
                    f"torch.cuda.device({self.device_index}).",
                    RuntimeWarning,
                    stacklevel=1,
                )
            self.previous_device = torch.cuda._exchange_device(self.device_index)
        return 0

    cdef int change_stream(self, uintptr_t stream) except -1:
        if stream == 2:
            raise ExecutionError(
                f"engine {self.name!r} was called under torch.cuda.ExternalStream(2), CUDA's per-thread "
                "default stream, which is another stream in each thread. Use a torch.cuda.Stream."
            )
        # The context's scratch memory is in use until its last work is done, so the new stream follows the
        # old. The side stream is ordered by events with the default stream, and stands for it here.
        if self.has_stream:
            if is_capturing(stream):
                return self.borrow_stream(stream)
            self.order.follow(self.stream, self.on_external_stream, stream)
        self.set_stream(stream)
        self.has_stream = True
        return 0

    cdef int borrow_stream(self, uintptr_t stream) except -1:
        """Use a stream that is being captured for this call only.

        Work of before cannot be waited for in a capture, so that the last stream with real work is kept for
        the next call to follow.
        """
        self.lender = self.stream
        self.is_borrowing = True
        self.temporaries.append(None)  # so that the call is tidied up after
        return self.set_stream(stream)

    cdef int return_stream(self) except -1:
        self.is_borrowing = False
        return self.set_stream(self.lender)

    cdef int set_stream(self, uintptr_t stream) except -1:
        self.stream = stream
        self.on_side_stream = stream == 0
        # PyTorch gives a stream that it did not make the stream's own handle for an id.
        self.on_external_stream = (
            stream != 0 and torch.cuda.current_stream(self.device_index).stream_id == stream
        )
        self.needs_events = self.on_side_stream or self.on_external_stream
        self.stream_handle = (
            <uintptr_t> <void*> self.order.side_stream if self.on_side_stream else stream
        )
        self.stream_argument = <PyObject*> self.stream_handle
        return 0

    cdef int restore_device(self) except -1:
        cdef int previous = self.previous_device
        self.previous_device = -1
        torch.cuda._maybe_exchange_device(previous)
        return 0

    cdef int bind_address(self, Py_ssize_t index) except -1:
        """Give the context the address that the slot wants next."""
        if self.defers_binding:
            self.graph_is_stale = True
            return 0
        return self.tell_address(index)

    cdef int tell_address(self, Py_ssize_t index) except -1:
        cdef IOSlot* slot = &self.slots[index]
        cdef PyObject* stack[3]
        cdef PyObject* result
        cdef object address = slot.next_address
        cdef object name = self.names[index]
        self.rebinds += 1
        stack[1] = <PyObject*> name
        stack[2] = <PyObject*> address
        result = PyObject_Vectorcall(self.set_address, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        Py_DECREF(<object> result)
        if result != Py_True:
            self.fail(f"set_tensor_address({name!r}, {address:#x})")
        slot.address = slot.next_address
        return 0

    cdef int use_shapes(self, tuple shapes, int profile) except -1:
        """Set the context up for a profile and input shapes; only what differs is told to TensorRT."""
        cdef Py_ssize_t index
        self.use_context()
        if profile != self.profile:
            if self.context.active_optimization_profile != profile:
                if self.context.set_optimization_profile_async(profile, self.stream_handle) is not True:
                    self.fail(f"set_optimization_profile_async({profile})")
            self.profile = profile
            self.context_shapes = [None] * self.input_count
        for index in range(self.input_count):
            if self.slots[index].is_dynamic and self.context_shapes[index] != shapes[index]:
                if self.set_shape(self.names[index], shapes[index]) is not True:
                    self.fail(f"set_input_shape({self.names[index]!r}, {shapes[index]})")
                self.context_shapes[index] = shapes[index]
        return 0

    cdef int use_workspace(self) except -1:
        """Give the context scratch memory for its present shapes, if TensorRT does not own it."""
        if self.shares_workspace:
            # Of the stream that TensorRT gets: two threads on the default stream have a side stream each.
            self.workspace = self.contexts.give_workspace(self.context, self.stream_handle)
        return 0

    cdef int enqueue(self) except -1:
        cdef PyObject* stack[2]
        cdef PyObject* result
        stack[1] = self.stream_argument
        if self.needs_events:
            result = self.enqueue_with_events(stack)
        else:
            result = PyObject_Vectorcall(self.execute, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        Py_DECREF(<object> result)
        if result != Py_True:
            self.fail("execute_async_v3")
        return 0

    cdef PyObject* enqueue_with_events(self, PyObject** stack) except NULL:
        if self.on_side_stream:
            self.order.enter_side_stream()
        try:
            return PyObject_Vectorcall(self.execute, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        finally:
            if self.on_side_stream:
                self.order.leave_side_stream()
            else:
                self.order.mark_done(self.stream)

    cdef int fail(self, str call) except -1:
        message = self.take_error()
        if self.on_cuda and torch.cuda.current_device() != self.device_index:
            call += f" (with cuda:{torch.cuda.current_device()} current, and the engine on {self.device})"
        says = f"TensorRT says: {message}" if message else "TensorRT logged no reason."
        raise ExecutionError(f"engine {self.name!r}: {call} failed. {says}")

    cdef int remember(self, Py_ssize_t index, PyObject* value) except -1:
        """What was found out about a tensor need not be found out again while the very same one comes.

        A weak reference tells whether it is. It costs more than finding out once, so it is made for a tensor
        that comes a second time.
        """
        cdef IOSlot* slot = &self.slots[index]
        if value == slot.last_object:
            self.references[index] = PyWeakref_NewRef(<object> value, None)
            slot.last_reference = <PyObject*> self.references[index]
        else:
            slot.last_reference = <PyObject*> _GONE
            slot.last_object = value
        return 0

    cdef int tidy(self, bint succeeded) except -1:
        """The end of a call that failed, or that made copies or switched something for its time."""
        try:
            if not succeeded:
                self.forget()
            self.temporaries.clear()
            if self.is_borrowing:
                self.return_stream()
            if self.previous_device >= 0:
                self.restore_device()
            return 0
        finally:
            release(self)

    cdef void forget(self) noexcept:
        """After a failure nothing is taken for granted, so that the next call binds everything."""
        cdef Py_ssize_t index
        for index in range(self.input_count + self.output_count):
            self.slots[index].address = 0
            self.slots[index].last_object = NULL
            if index < self.input_count:
                self.slots[index].layout.ndim = -1
        self.context_shapes = [None] * self.input_count
        self.profile = -1
