"""One executor for each stream that calls a module, up to a limit.

An execution context belongs to one stream at a time. With one each, calls on two streams run side by
side, and calls on one stream follow one another. On a CPU, where there are no streams, a thread counts as
one.
"""

cimport cython
from cpython.pystate cimport PyThreadState_Get
from libc.stdint cimport uint64_t, uintptr_t
from libcpp.mutex cimport mutex
from libcpp.vector cimport vector

from trt_rt._core.dlpack cimport DLExchangeAPI, current_stream, torch_exchange_api

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define TRT_RT_LOCK(mutex) (mutex).lock()
    #define TRT_RT_UNLOCK(mutex) (mutex).unlock()
    #else
    #define TRT_RT_LOCK(mutex)
    #define TRT_RT_UNLOCK(mutex)
    #endif
    """
    # The GIL is not released between the two, so with a GIL it is the lock.
    void LOCK "TRT_RT_LOCK"(mutex&) noexcept nogil
    void UNLOCK "TRT_RT_UNLOCK"(mutex&) noexcept nogil

cdef uintptr_t UNCLAIMED = <uintptr_t> -1  # the stream of an executor that any stream may take


cdef struct Route:
    uintptr_t stream             # on a CPU, the thread
    uint64_t calls               # `Executor.calls` when a use was last noted: more calls are a later use
    uint64_t noted               # the clock when a use was last noted; higher is later


@cython.final
cdef class ExecutorPool:
    """Finds the executor of the calling stream.

    A call only reads the pool, so that threads do not slow one another down by writing to shared memory. Each
    executor counts its own calls. Only when a stream comes that has no executor, the pool compares these
    counts with those that it noted the last time, and so learns which executors were used since.

    Parameters
    ----------
    make_executor : callable
        Makes another executor.
    device : torch.device
        Where they run.
    capacity : int
        How many at most. A stream beyond that takes over an executor that was not used for the longest time,
        after an event, and so waits for its work.
    """

    cdef const DLExchangeAPI* api
    cdef int device_index
    cdef bint on_cuda
    cdef object make_executor
    cdef list executors          # the one of each route
    cdef vector[Route] routes
    cdef readonly Py_ssize_t capacity
    cdef uint64_t clock          # of the notes in the routes
    cdef mutex lock              # of the routes

    def __cinit__(self, make_executor, device, Py_ssize_t capacity):
        if capacity < 1:
            raise ValueError(f"max_contexts={capacity}: a module needs at least one execution context.")
        self.api = torch_exchange_api()
        self.on_cuda = device.type == "cuda"
        self.device_index = device.index or 0
        self.make_executor = make_executor
        self.capacity = capacity
        self.executors = []

    def __init__(self, *args, **kwargs):
        # The first is made now, so that a lack of memory shows when a module is made; any stream may take it.
        self._add_route(UNCLAIMED)

    cdef inline uintptr_t callers_route(self) except? 1:
        """The calling thread's current stream; on a CPU, the thread."""
        if self.on_cuda:
            return current_stream(self.api, self.device_index)
        return <uintptr_t> PyThreadState_Get()

    cdef inline Executor select(self, uintptr_t stream):
        """The executor of a stream or thread."""
        cdef Py_ssize_t index
        cdef Executor executor
        LOCK(self.lock)
        for index in range(self._count()):
            if self.routes[index].stream == stream:
                executor = <Executor> self.executors[index]
                UNLOCK(self.lock)
                return executor
        UNLOCK(self.lock)
        return self._add_route(stream)

    cdef inline Py_ssize_t _count(self) noexcept:
        return <Py_ssize_t> self.routes.size()

    cdef Executor _add_route(self, uintptr_t stream):
        """Give a new stream the unclaimed executor, a new one, or the one that was not used for longest."""
        cdef Py_ssize_t index, chosen
        cdef Executor made = None, executor
        if self.on_cuda and self._count() != 0 and stream != UNCLAIMED and is_capturing(stream):
            return self._lend_to_capture(stream)
        if self._count() < self.capacity and not (self._count() == 1 and self.routes[0].stream == UNCLAIMED):
            made = self.make_executor()
        LOCK(self.lock)
        self._note_uses()
        if made is not None and self._count() < self.capacity:
            chosen = self._count()
            self.executors.append(made)
            self.routes.push_back(Route(UNCLAIMED, 0, 0))
        elif self._count() == 0:  # another thread has taken the last one out
            UNLOCK(self.lock)
            return self._add_route(stream)
        else:
            chosen = 0
            for index in range(1, self._count()):
                if self.routes[index].noted < self.routes[chosen].noted:
                    chosen = index
        executor = self._assign(chosen, stream)
        UNLOCK(self.lock)
        return executor

    cdef Executor _assign(self, Py_ssize_t index, uintptr_t stream):
        """Make an executor that of another stream, whose call follows."""
        cdef Executor executor = <Executor> self.executors[index]
        self.clock += 1
        self.routes[index].stream = stream
        # With the call that follows, whose use is noted here: `_note_uses` must not note it as a later one.
        self.routes[index].calls = executor.calls + 1
        self.routes[index].noted = self.clock
        return executor

    cdef void _note_uses(self) noexcept:
        """Note which executors were called since the last time."""
        cdef Py_ssize_t index
        cdef uint64_t calls
        self.clock += 1
        for index in range(self._count()):
            calls = (<Executor> self.executors[index]).calls
            if calls != self.routes[index].calls:
                self.routes[index].calls = calls
                self.routes[index].noted = self.clock

    cdef Executor _lend_to_capture(self, uintptr_t stream):
        """Give a stream that is being captured the executor used last, with the shapes that it has.

        A new context would allocate memory, which CUDA refuses there. The executor that this thread called
        comes first, because a warm-up before a capture runs on the thread that captures. The stream that had
        this executor gets a new one when it calls next, so that nothing modifies the captured context.
        """
        cdef Py_ssize_t index, chosen = 0
        cdef Executor executor
        LOCK(self.lock)
        self._note_uses()
        for index in range(1, self._count()):
            if self._is_used_later(index, chosen):
                chosen = index
        executor = self._assign(chosen, stream)
        UNLOCK(self.lock)
        return executor

    cdef bint _is_used_later(self, Py_ssize_t index, Py_ssize_t other) noexcept:
        """Whether one executor was used by this thread, or was used, later than another."""
        cdef bint is_ours = (<Executor> self.executors[index]).last_caller == PyThreadState_Get()
        cdef bint other_is_ours = (<Executor> self.executors[other]).last_caller == PyThreadState_Get()
        if is_ours != other_is_ours:
            return is_ours
        return self.routes[index].noted > self.routes[other].noted

    def current(self):
        """Return the executor of the calling thread's current stream.

        Returns
        -------
        Executor

        Raises
        ------
        BackendError
            If there is no memory for another execution context.
        """
        return self.select(self.callers_route())

    def take(self):
        """Take the current stream's executor out, so that no other call ever uses it; None if there is none.

        For work that has its context baked in: a captured CUDA graph.
        """
        cdef uintptr_t stream = self.callers_route()
        cdef Py_ssize_t index
        LOCK(self.lock)
        try:
            for index in range(self._count()):
                if self.routes[index].stream == stream:
                    executor = self.executors[index]
                    self.routes[index] = self.routes.back()
                    self.routes.pop_back()
                    self.executors[index] = self.executors[len(self.executors) - 1]
                    self.executors.pop()
                    return executor
            return None
        finally:
            UNLOCK(self.lock)

    def all(self):
        """Return every executor made so far.

        Returns
        -------
        list of Executor
        """
        return list(self.executors)
