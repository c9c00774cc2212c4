"""An execution context together with what it holds: shapes, addresses, profile, stream."""

from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState, PyThreadState_Get
from libc.stdint cimport int32_t, uint64_t, uintptr_t
from libcpp.mutex cimport mutex

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
    cdef bint shares_workspace   # the context runs in scratch memory of ours
    cdef object workspace        # scratch memory of ours that the context uses, or None
    cdef object contexts         # makes contexts; keeps alive the engine and whatever else must outlive them

    cdef readonly tuple inputs
    cdef readonly tuple outputs
    cdef readonly object device
    cdef readonly str name
    cdef tuple names             # inputs, then outputs
    cdef Py_ssize_t input_count
    cdef Py_ssize_t output_count
    cdef IOSlot* slots           # inputs, then outputs
    cdef list references         # to the tensors last checked, weak: a slot borrows its own
    cdef list context_shapes     # what set_input_shape was told, per input; None while unknown
    cdef readonly int profile    # -1 while unknown
    cdef uint64_t rebinds        # calls of set_tensor_address
    cdef bint defers_binding     # a graph has addresses of its own: the context is not told
    cdef bint graph_is_stale     # with binding deferred: an address is not the last call's
    cdef object take_error       # TensorRT's last message, and forget it

    cdef DLExchangeAPI* api
    cdef int32_t device_index
    cdef bint on_cuda
    cdef int previous_device     # to switch back to; -1 if this call switched nothing
    cdef StreamOrder order
    cdef uintptr_t stream        # the caller's, of the last call
    cdef bint has_stream
    cdef bint on_side_stream     # the caller is on the legacy default stream
    cdef bint on_external_stream  # not PyTorch's: its owner may destroy it after a call
    cdef bint needs_events       # either of the two: an enqueue is more than one call
    cdef object stream_handle    # what execute_async_v3 is given
    cdef PyObject* stream_argument  # the same, borrowed
    cdef uintptr_t lender        # the stream before one that was borrowed for this call
    cdef bint is_borrowing
    cdef list temporaries        # copies of inputs; PyTorch reuses their memory in stream order

    # Not a PyThread lock: up to Python 3.12 taking one reads the clock, even without waiting.
    cdef mutex lock
    cdef PyThreadState* lock_owner  # identity only; NULL while free

    cdef int _describe(self, IOSlot* slot, tensor) except -1
    cdef void wait_quietly(self) noexcept
    cdef int use_context(self) except -1
    cdef int drop_context(self) except -1
    cdef int wait_for_lock(self) except -1
    cdef uintptr_t callers_stream(self) except? 1
    cdef int use_stream(self, uintptr_t stream) except -1
    cdef int enter_device(self) except -1
    cdef int change_stream(self, uintptr_t stream) except -1
    cdef int borrow_stream(self, uintptr_t stream) except -1
    cdef int return_stream(self) except -1
    cdef int set_stream(self, uintptr_t stream) except -1
    cdef int restore_device(self) except -1
    cdef int bind_address(self, Py_ssize_t index) except -1
    cdef int tell_address(self, Py_ssize_t index) except -1
    cdef int use_shapes(self, tuple shapes, int profile) except -1
    cdef int use_workspace(self) except -1
    cdef int enqueue(self) except -1
    cdef PyObject* enqueue_with_events(self, PyObject** stack) except NULL
    cdef int fail(self, str call) except -1
    cdef int tidy(self, bint succeeded) except -1
    cdef void forget(self) noexcept
    cdef int remember(self, Py_ssize_t index, PyObject* value) except -1


cdef extern from "Python.h":
    Py_ssize_t PyList_GET_SIZE(object)

cdef extern from *:
    """
    #define TRT_RT_REFERENT(reference) (((PyWeakReference *) (reference))->wr_object)
    """
    PyObject* REFERENT "TRT_RT_REFERENT"(PyObject*) noexcept  # identity only; None's once it has gone


cdef inline bint is_last(const IOSlot* slot, PyObject* value) noexcept:
    """Whether `value` is the very tensor that was checked last."""
    return value == slot.last_object and value == REFERENT(slot.last_reference)


cdef inline int acquire(BoundContext self) except -1:
    """One call at a time: an execution context is not thread-safe, and TensorRT releases the GIL."""
    if not self.lock.try_lock():
        self.wait_for_lock()
    self.lock_owner = PyThreadState_Get()
    return 0


cdef inline void release(BoundContext self) noexcept:
    self.lock_owner = NULL
    self.lock.unlock()


cdef inline int end_call(BoundContext self, bint succeeded) except -1:
    """What `acquire` began; with a flag, as ``except`` would save the thread's exception state each time."""
    if succeeded and self.previous_device < 0 and PyList_GET_SIZE(self.temporaries) == 0:
        release(self)
        return 0
    return self.tidy(succeeded)
