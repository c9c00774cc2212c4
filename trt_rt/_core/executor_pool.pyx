# cython: boundscheck=False, wraparound=False
"""One executor per stream that calls a module.

An execution context belongs to one stream at a time. With one each, calls on two streams run side by
side, and calls on one stream follow one another. On a CPU, where there are no streams, a thread counts as
one.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pystate cimport PyThreadState_Get
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.dlpack cimport current_stream, torch_exchange_api
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

cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <x86intrin.h>
    static inline uint64_t trt_rt_time_stamp(void) { return __rdtsc(); }
    #elif defined(__aarch64__)
    static inline uint64_t trt_rt_time_stamp(void) {
        uint64_t stamp;
        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(stamp));
        return stamp;
    }
    #else
    #include <time.h>
    static inline uint64_t trt_rt_time_stamp(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000000u + now.tv_nsec;
    }
    #endif
    """
    # Rises with time, and is written nowhere: a counter would be, by every thread at every call.
    uint64_t time_stamp "trt_rt_time_stamp" () noexcept nogil

cdef uintptr_t UNCLAIMED = <uintptr_t> -1  # the route of an executor that any stream may take


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
        self.routes = <uintptr_t*> PyMem_Malloc(capacity * sizeof(uintptr_t))
        if self.routes == NULL:
            raise MemoryError()

    def __init__(self, *args, **kwargs):
        # The first is made now, so that a lack of memory shows when a module is made; any stream may take it.
        self._add_route(UNCLAIMED)

    def __dealloc__(self):
        PyMem_Free(self.routes)

    cdef uintptr_t callers_route(self) except? 1:
        """The calling thread's current stream; on a CPU, the thread."""
        if self.on_cuda:
            return current_stream(self.api, self.device_index)
        return <uintptr_t> PyThreadState_Get()

    cdef Executor select(self, uintptr_t route):
        """The executor of a stream or thread."""
        cdef Py_ssize_t index
        cdef Executor executor
        LOCK(self.lock)
        for index in range(self.count):
            if self.routes[index] == route:
                executor = <Executor> self.executors[index]
                executor.last_used = time_stamp()
                UNLOCK(self.lock)
                return executor
        UNLOCK(self.lock)
        return self._add_route(route)

    cdef Executor _add_route(self, uintptr_t route):
        """Give a new stream the unclaimed executor, a new one, or that of the stream idle longest."""
        cdef Py_ssize_t index, chosen = -1
        cdef Executor made = None, executor
        if self.on_cuda and self.count != 0 and route != UNCLAIMED and is_capturing(route):
            return self._lend_to_capture(route)
        if self.count < self.capacity and not (self.count == 1 and self.routes[0] == UNCLAIMED):
            made = self.make_executor()
        LOCK(self.lock)
        if made is not None and self.count < self.capacity:
            chosen = self.count
            self.executors.append(made)
            self.count += 1
        elif self.count == 0:  # another thread has taken the last one out
            UNLOCK(self.lock)
            return self._add_route(route)
        else:
            chosen = 0
            for index in range(1, self.count):
                if self._last_used(index) < self._last_used(chosen):
                    chosen = index
        self.routes[chosen] = route
        executor = <Executor> self.executors[chosen]
        executor.last_used = time_stamp()
        UNLOCK(self.lock)
        return executor

    cdef uint64_t _last_used(self, Py_ssize_t index) noexcept:
        return (<Executor> self.executors[index]).last_used

    cdef Executor _lend_to_capture(self, uintptr_t route):
        """Give a stream that is being captured the executor used last, with the shapes that it has.

        A new context would allocate memory, which CUDA refuses there. The stream that had this one gets a
        new one when it calls next, so that nothing modifies the context that was captured.
        """
        cdef Py_ssize_t index, chosen = 0
        LOCK(self.lock)
        for index in range(1, self.count):
            if self._last_used(index) > self._last_used(chosen):
                chosen = index
        self.routes[chosen] = route
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
        return self.select(self.callers_route())

    def take(self):
        """Take the current stream's executor out, so that no other call ever uses it; None if there is none.

        For work that has baked its context in: a captured CUDA graph.
        """
        cdef uintptr_t route = self.callers_route()
        cdef Py_ssize_t index
        LOCK(self.lock)
        try:
            for index in range(self.count):
                if self.routes[index] == route:
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
