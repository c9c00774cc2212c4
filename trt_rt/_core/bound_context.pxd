"""An execution context together with what it holds: shapes, addresses, profile, stream."""

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int32_t, uintptr_t

from trt_rt._core.dlpack cimport DLExchangeAPI
from trt_rt._core.driver cimport StreamOrder
from trt_rt._core.io_slot cimport IOSlot


cdef class BoundContext:
    cdef object __weakref__      # an Engine knows its executors without keeping them
    # Declared in the order in which they are released: what refers to the context, the context, and then
    # what its callbacks and memory live in.
    cdef object execute          # bound methods of the context
    cdef object set_address
    cdef object set_shape
    cdef readonly object context
    cdef list allocators         # one per output; None where TensorRT does not allocate
    cdef object owner            # the engine and whatever else must outlive the context

    cdef readonly tuple inputs
    cdef readonly tuple outputs
    cdef readonly object device
    cdef readonly str name
    cdef tuple names             # inputs, then outputs
    cdef Py_ssize_t input_count
    cdef Py_ssize_t output_count
    cdef IOSlot* slots           # inputs, then outputs
    cdef list context_shapes     # what set_input_shape was told, per input; None while unknown
    cdef readonly int profile    # -1 while unknown
    cdef object take_error       # TensorRT's last message, and forget it

    cdef DLExchangeAPI* api
    cdef int32_t device_index
    cdef bint on_cuda
    cdef bint check_device       # more than one GPU: the caller's may not be the engine's
    cdef int previous_device     # to switch back to; -1 if this call switched nothing
    cdef StreamOrder order
    cdef uintptr_t stream        # the caller's, of the last call
    cdef bint has_stream
    cdef bint on_side_stream     # the caller is on the legacy default stream
    cdef object stream_handle    # what execute_async_v3 is given

    cdef PyThread_type_lock lock
    cdef unsigned long lock_owner

    cdef int _describe(self, IOSlot* slot, tensor) except -1
    cdef int acquire(self) except -1
    cdef void release(self) noexcept
    cdef int use_stream(self) except -1
    cdef int change_stream(self, uintptr_t stream) except -1
    cdef int restore_device(self) except -1
    cdef int bind_address(self, Py_ssize_t index) except -1
    cdef int use_shapes(self, tuple shapes, int profile) except -1
    cdef int enqueue(self) except -1
    cdef int fail(self, str call) except -1
    cdef void forget(self) noexcept
