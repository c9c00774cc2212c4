"""The stream and the device that the caller of an executor works on."""

cimport cython
from libc.stdint cimport int32_t, uintptr_t

from trt_rt._core.dlpack cimport DLExchangeAPI, current_stream, torch_exchange_api

import sys
import warnings

import torch

from trt_rt.errors import ExecutionError

cdef bint _safe_mode = False
cdef bint _has_warned = False


def set_multi_device_safe_mode(bint enabled):
    """Let calls make their engine's device current, for every engine of the process; see `trt_rt.runtime`."""
    global _safe_mode, _has_warned
    _safe_mode = enabled
    _has_warned = False


def multi_device_safe_mode():
    """Return whether calls make their engine's device current."""
    return _safe_mode


@cython.final
@cython.no_gc_clear  # waiting for the last work needs every member
cdef class CallStream:
    """The stream that an executor enqueues to, and the device that it runs on.

    Work goes to the caller's current stream. TensorRT synchronises with the host on CUDA's legacy default
    stream, so a call from there goes through a side stream. The owner of a stream that PyTorch did not make
    may destroy it after a call, so an event marks the end of each call there.

    Parameters
    ----------
    device : torch.device
        ``cpu``, or ``cuda`` with an index.
    engine_name : str
        For messages.
    """

    cdef const DLExchangeAPI* api
    cdef object device
    cdef str engine_name
    cdef int32_t device_index
    cdef bint on_cuda
    cdef StreamOrder order       # None on a CPU
    cdef uintptr_t handle        # the caller's stream, of the last call
    cdef uintptr_t thread        # on a CPU: the last thread that called
    cdef bint is_known           # `handle` is a stream; False before the first call, and on a CPU
    cdef bint is_default         # the legacy default stream: work goes through the side stream
    cdef bint is_external        # not PyTorch's
    cdef bint needs_events       # default or external: an enqueue is more than one call
    cdef object argument         # what execute_async_v3 takes: the handle of the stream that runs the work
    cdef uintptr_t lender        # the stream before one that was borrowed for this call
    cdef bint is_borrowed
    cdef int previous_device     # the device to switch back to; -1 if this call has not switched
    cdef bint must_restore       # this call has borrowed a stream, or switched the device

    def __cinit__(self, device, str engine_name):
        self.api = torch_exchange_api()
        self.device = device
        self.engine_name = engine_name
        self.on_cuda = device.type == "cuda"
        self.device_index = device.index or 0
        self.argument = 0
        self.previous_device = -1
        if self.on_cuda:
            self.order = StreamOrder(self.device_index)

    cdef inline uintptr_t current(self) except? 1:
        """The calling thread's current stream; 0 on a CPU."""
        return current_stream(self.api, self.device_index) if self.on_cuda else 0

    cdef inline bint use(self, uintptr_t stream) except -1:
        """Enqueue to `stream` from now on.

        Returns whether it has taken the place of another stream. PyTorch reuses freed memory in the order of
        the stream that it was allocated for, so nothing that was allocated for the old stream may be in use
        on the new one. On a CPU a thread counts as a stream, so that its results stay its own; 0 is any.
        """
        cdef uintptr_t left = self.thread
        if self.on_cuda:
            need_context()
            return (stream != self.handle or not self.is_known) and self._change(stream)
        if stream == left or stream == 0:
            return False
        self.thread = stream
        return left != 0

    cdef bint _change(self, uintptr_t stream) except -1:
        cdef bint had_stream = self.is_known
        if stream == 2:
            raise ExecutionError(
                f"engine {self.engine_name!r} was called under torch.cuda.ExternalStream(2), CUDA's "
                "per-thread default stream, which is another stream in each thread. Use a torch.cuda.Stream."
            )
        # The context's scratch memory is in use until its last work is done, so the new stream follows the
        # old. The side stream is ordered by events with the default stream, and stands for it here.
        if had_stream:
            if is_capturing(stream):
                self._borrow(stream)
                return False
            self.order.follow(self.handle, self.is_external, stream)
        self._set(stream)
        self.is_known = True
        return had_stream

    cdef int _borrow(self, uintptr_t stream) except -1:
        """Use a stream that is being captured, for this call only.

        A capture cannot wait for earlier work. The next ordinary call must still follow that work, so the
        last stream with real work is kept for it.
        """
        self.lender = self.handle
        self.is_borrowed = True
        self.must_restore = True
        return self._set(stream)

    cdef int _set(self, uintptr_t stream) except -1:
        self.handle = stream
        self.is_default = stream == 0
        self.is_external = is_external(stream, self.device_index)
        self.needs_events = self.is_default or self.is_external
        self.argument = <uintptr_t> <void*> self.order.side_stream if self.is_default else stream
        return 0

    cdef inline int check_device(self) except -1:
        """Make the engine's device current for this call where that is needed and allowed."""
        # The default stream belongs to the current context, so it needs the right one even on one GPU.
        if (_safe_mode or self.is_default) and self.order.has_other_context():
            self._enter_device()
        return 0

    cdef int _enter_device(self) except -1:
        global _has_warned
        current = torch.cuda.current_device()
        if current == self.device_index:
            return 0
        if not _safe_mode:
            raise ExecutionError(
                f"engine {self.engine_name!r} is on {self.device}, but the current device is cuda:{current}. "
                f"Call it under torch.cuda.device({self.device_index}), or call "
                "set_multi_device_safe_mode(True)."
            )
        if not _has_warned:
            _has_warned = True
            warnings.warn(
                f"engine {self.engine_name!r} is on {self.device}, but the current device is cuda:{current}: "
                "multi-device safe mode switches for each such call, which costs time. Call it under "
                f"torch.cuda.device({self.device_index}).",
                RuntimeWarning,
                stacklevel=1,
            )
        self.must_restore = True
        self.previous_device = torch.cuda._exchange_device(self.device_index)
        return 0

    cdef int restore(self) except -1:
        """Undo what was changed for one call: give back a borrowed stream, switch back to the old device."""
        cdef int previous = self.previous_device
        if self.is_borrowed:
            self.is_borrowed = False
            self._set(self.lender)
        if previous >= 0:
            self.previous_device = -1
            torch.cuda._maybe_exchange_device(previous)
        self.must_restore = False
        return 0

    cdef int wait(self) except -1:
        """Wait for the last work that was enqueued."""
        if self.is_known:
            self.order.wait_for(self.handle, self.is_external)
        return 0

    cdef void wait_quietly(self) noexcept:
        """Wait for the last work before what it uses is freed, where no exception can be raised.

        While the interpreter is finalising nothing is touched: the driver may be gone, and the process frees
        everything.
        """
        if self.is_known and sys is not None and not sys.is_finalizing():
            try:
                self.wait()
            except Exception:  # no caller is left who could be told
                pass
