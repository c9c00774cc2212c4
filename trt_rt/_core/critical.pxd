"""Locks, and the two ends of a context manager, which no interrupt can cut in two."""

from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState, PyThreadState_Get

cdef extern from *:
    """
    #include <atomic>
    #include <climits>
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    #ifndef TRT_RT_GATE_LOCK
    #define TRT_RT_GATE_LOCK
    // The states of a lock. BUSY: whoever leaves has more to do, because others wait or have left jobs.
    enum { TRT_RT_FREE, TRT_RT_TAKEN, TRT_RT_BUSY };

    // A lock that is plain memory: a forked child can free what threads of its parent have
    // taken. Up to Python 3.12 a PyThread lock also reads the clock when it is taken.
    struct TrtRtGateLock {
        std::atomic<int> state{TRT_RT_FREE};
        std::atomic<PyThreadState *> owner{nullptr};
        TrtRtGateLock *next = nullptr, *previous = nullptr;  // all gates of the process
        PyObject *gate = nullptr;                            // borrowed: whose lock this is

        bool take(PyThreadState *me) {
            int expected = TRT_RT_FREE;
            if (!state.compare_exchange_strong(expected, TRT_RT_TAKEN, std::memory_order_acquire))
                return false;
            owner.store(me, std::memory_order_relaxed);
            return true;
        }
        // Blocks at most until somebody leaves or a signal arrives; without the GIL.
        bool wait() {
            if (state.exchange(TRT_RT_BUSY, std::memory_order_acquire) == TRT_RT_FREE) return true;
            syscall(SYS_futex, &state, FUTEX_WAIT_PRIVATE, TRT_RT_BUSY, nullptr, nullptr, 0);
            return state.exchange(TRT_RT_BUSY, std::memory_order_acquire) == TRT_RT_FREE;
        }
        // Not if there is more to do; then it is still taken.
        bool leave() {
            int expected = TRT_RT_TAKEN;
            PyThreadState *me = owner.load(std::memory_order_relaxed);
            owner.store(nullptr, std::memory_order_relaxed);
            if (state.compare_exchange_strong(expected, TRT_RT_FREE, std::memory_order_release)) return true;
            owner.store(me, std::memory_order_relaxed);
            return false;
        }
        void free() {
            owner.store(nullptr, std::memory_order_relaxed);
            state.store(TRT_RT_FREE, std::memory_order_release);
            syscall(SYS_futex, &state, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
        }
        // Tells whoever has it to look at its jobs; false if nobody has it.
        bool mark_busy() {
            int expected = TRT_RT_TAKEN;
            return state.compare_exchange_strong(expected, TRT_RT_BUSY) || expected == TRT_RT_BUSY;
        }
    };
    #endif
    """
    cdef cppclass GateLock "TrtRtGateLock":
        GateLock* next
        GateLock* previous
        PyObject* gate
        PyThreadState* get_owner "owner.load" () noexcept nogil
        void set_owner "owner.store" (PyThreadState*) noexcept nogil
        int get_state "state.load" () noexcept nogil
        bint take(PyThreadState*) noexcept nogil
        bint wait() noexcept nogil
        bint leave() noexcept nogil
        void free() noexcept nogil
        bint mark_busy() noexcept nogil


cdef class Gate:
    cdef GateLock lock
    cdef str refusal             # for a thread that comes again; None: it is let in
    cdef list jobs               # run by whoever has the gate, before leaving it
    cdef list followers          # run by whoever had the gate, after leaving it
    cdef public bint is_abandoned  # who had it did not survive a fork

    cdef int wait(self) except -1
    cdef int leave_slowly(self) except -1


cdef class Cell:
    cdef object _value


cdef int clear_frames() except -1


cdef inline int enter_as(PyObject* gate, PyThreadState* thread) except -1:
    """Wait for a `Gate` on behalf of the calling thread. Raises ExecutionError if it has the gate already."""
    if not (<Gate> gate).lock.take(thread):
        (<Gate> gate).wait()
    return 0


cdef inline int enter(PyObject* gate) except -1:
    """Wait for a `Gate`. Raises ExecutionError if the thread has it already."""
    return enter_as(gate, PyThreadState_Get())


cdef inline int leave(PyObject* gate) except -1:
    """Let the next one in. An interrupt may come out; the gate is left all the same."""
    if not (<Gate> gate).lock.leave():
        (<Gate> gate).leave_slowly()
    return 0
