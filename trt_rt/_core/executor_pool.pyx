# cython: boundscheck=False, wraparound=False
"""One executor per stream that calls a module.

An execution context belongs to one stream at a time. With one each, calls on two streams run side by
side, and calls on one stream follow one another. On a CPU, where there are no streams, a thread counts as
one.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pystate cimport PyThreadState_Get
from libc.stdint cimport uintptr_t

from trt_rt._core.dlpack cimport DL_CUDA, torch_exchange_api
from trt_rt._core.driver cimport is_capturing
from trt_rt._core.executor cimport Executor

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
    # The GIL is not let go of between the two, so that with a GIL it is the lock.
    void LOCK "TRT_RT_LOCK"(mutex&) noexcept nogil
    void UNLOCK "TRT_RT_UNLOCK"(mutex&) noexcept nogil


cdef class ExecutorPool:
    """Finds the executor of the calling stream.

    Parameters
    ----------
    make_executor : callable
        Makes another executor.
    device : torch.device
        Where they run.
    capacity : int
        How many at most. A stream beyond that takes over the executor that was used least recently,
        after an event, and so waits for its work.
    """

    def __cinit__(self, make_executor, device, Py_ssize_t capacity):
        if capacity < 1:
            raise ValueError(f"max_contexts={capacity}: a module needs at least one execution context.")
        self.api = torch_exchange_api()
        self.on_cuda = device.type == "cuda"
        self.device_index = device.index or 0
        self.make_executor = make_executor
        self.capacity = capacity
        self.executors = []
        self.routes = <Route*> PyMem_Malloc(capacity * sizeof(Route))
        if self.routes == NULL:
            raise MemoryError()

    def __init__(self, *args, **kwargs):
        # The first is made now, so that a lack of memory shows when a module is made; any stream may take it.
        self._add_route(<uintptr_t> -1)

    def __dealloc__(self):
        PyMem_Free(self.routes)

    cdef Executor select(self):
        """The executor of the calling thread's current stream."""
        cdef void* stream = NULL
        if not self.on_cuda:
            return self._select_route(<uintptr_t> PyThreadState_Get())
        self.api.current_work_stream(DL_CUDA, self.device_index, &stream)
        return self._select_route(<uintptr_t> stream)

    cdef Executor _select_route(self, uintptr_t stream):
        cdef Py_ssize_t index
        cdef Executor executor
        LOCK(self.lock)
        for index in range(self.count):
            if self.routes[index].stream == stream:
                self.clock += 1
                self.routes[index].last_used = self.clock
                executor = <Executor> self.executors[index]
                UNLOCK(self.lock)
                return executor
        UNLOCK(self.lock)
        return self._add_route(stream)

    cdef Executor _add_route(self, uintptr_t stream):
        """Give a new stream the unclaimed executor, a new one, or that of the stream idle longest."""
        cdef Py_ssize_t index, chosen = -1
        cdef Executor executor
        if self.on_cuda and self.count != 0 and stream != <uintptr_t> -1 and is_capturing(stream):
            return self._lend_to_capture(stream)
        if self.count < self.capacity and not (self.count == 1 and self.routes[0].stream == <uintptr_t> -1):
            executor = self.make_executor()
            LOCK(self.lock)
            if self.count < self.capacity:
                chosen = self.count
                self.executors.append(executor)
                self.count += 1
            UNLOCK(self.lock)
        LOCK(self.lock)
        if chosen < 0:
            chosen = 0
            for index in range(1, self.count):
                if self.routes[index].last_used < self.routes[chosen].last_used:
                    chosen = index
        self.clock += 1
        self.routes[chosen].stream = stream
        self.routes[chosen].last_used = self.clock
        executor = <Executor> self.executors[chosen]
        UNLOCK(self.lock)
        return executor

    cdef Executor _lend_to_capture(self, uintptr_t stream):
        """Give a stream that is being captured the executor used last, with the shapes that it has.

        A new context would allocate memory, which CUDA refuses there. The stream that had this one gets a
        new one when it calls next, so that nothing modifies the context that was captured.
        """
        cdef Py_ssize_t index, chosen = 0
        LOCK(self.lock)
        for index in range(1, self.count):
            if self.routes[index].last_used > self.routes[chosen].last_used:
                chosen = index
        self.routes[chosen].stream = stream
        executor = <Executor> self.executors[chosen]
        UNLOCK(self.lock)
        return executor

    def current(self):
        """The executor of the calling thread's current stream.

        Returns
        -------
        Executor

        Raises
        ------
        BackendError
            If there is no memory for another execution context.
        """
        return self.select()

    def take(self):
        """Take the current stream's executor out, so that no other call ever uses it; None if there is none.

        For work that has baked its context in: a captured CUDA graph.
        """
        cdef void* stream = NULL
        cdef uintptr_t wanted = <uintptr_t> PyThreadState_Get()
        cdef Py_ssize_t index
        if self.on_cuda:
            self.api.current_work_stream(DL_CUDA, self.device_index, &stream)
            wanted = <uintptr_t> stream
        LOCK(self.lock)
        try:
            for index in range(self.count):
                if self.routes[index].stream == wanted:
                    self.count -= 1
                    self.routes[index] = self.routes[self.count]
                    executor = self.executors[index]
                    self.executors[index] = self.executors[self.count]
                    self.executors.pop()
                    return executor
            return None
        finally:
            UNLOCK(self.lock)

    def all(self):
        """Every executor made so far.

        Returns
        -------
        list of Executor
        """
        return list(self.executors)
