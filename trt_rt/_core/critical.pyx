"""Locks, and the two ends of a context manager, which no interrupt can cut in two.

CPython runs signal handlers between bytecodes, so that KeyboardInterrupt can come out of any line of Python.
It comes out of ``with lock:`` between taking and leaving too: between the end of the block and the call of
``__exit__``, at the beginning of an ``__exit__`` that is written in Python, in a `finally` block. Code in C
runs no signal handlers until it calls Python code again. So here locks are taken and left in C, around a
Python function.
"""

from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState, PyThreadState_Get

import os
import sys

from trt_rt.errors import ExecutionError

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    void PyErr_WriteUnraisable(object)

cdef extern from *:
    """
    #include <mutex>
    #ifdef Py_GIL_DISABLED
    static std::mutex trt_rt_gates_mutex;
    #define TRT_RT_LOCK_GATES() trt_rt_gates_mutex.lock()
    #define TRT_RT_UNLOCK_GATES() trt_rt_gates_mutex.unlock()
    #define TRT_RT_RENEW_GATES() new (&trt_rt_gates_mutex) std::mutex()
    #else  /* the GIL is the lock */
    #define TRT_RT_LOCK_GATES()
    #define TRT_RT_UNLOCK_GATES()
    #define TRT_RT_RENEW_GATES()
    #endif
    """
    void _lock_gates "TRT_RT_LOCK_GATES" () noexcept
    void _unlock_gates "TRT_RT_UNLOCK_GATES" () noexcept
    void _renew_gates "TRT_RT_RENEW_GATES" () noexcept
    int FREE "TRT_RT_FREE"

cdef str _PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep

cdef GateLock* _first = NULL  # of all gates


cdef class Gate:
    """A lock that is taken and left around a function, so that no interrupt can leave it taken.

    A forked child finds the gates free that other threads of its parent had.

    Parameters
    ----------
    refusal : str, optional
        For the ExecutionError that a thread gets which has the gate already. Default: such a thread is let
        in.
    """

    def __cinit__(self, str refusal=None):
        global _first
        self.refusal = refusal
        self.jobs = []
        self.followers = []
        self.lock.gate = <PyObject*> self
        _lock_gates()
        self.lock.next = _first
        if _first != NULL:
            _first.previous = &self.lock
        _first = &self.lock
        _unlock_gates()

    def __dealloc__(self):
        global _first
        _lock_gates()
        if self.lock.next != NULL:
            self.lock.next.previous = self.lock.previous
        if self.lock.previous != NULL:
            self.lock.previous.next = self.lock.next
        else:
            _first = self.lock.next
        _unlock_gates()

    @property
    def is_mine(self):
        """Whether the calling thread has the gate."""
        return self.lock.get_owner() == PyThreadState_Get()

    def run(self, function, /, *args, **kwargs):
        """Wait for the gate, call a function, and leave the gate.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        ExecutionError
            If the thread has the gate already, and the gate refuses that.
        """
        if self.refusal is None and self.lock.get_owner() == PyThreadState_Get():
            return function(*args, **kwargs)
        enter(<PyObject*> self)
        try:
            return function(*args, **kwargs)
        except:
            clear_frames()
            raise
        finally:
            leave(<PyObject*> self)

    def defer(self, job, /):
        """Run a job within the gate without waiting: now if it is free, else by whoever has it, before
        leaving.

        Parameters
        ----------
        job : callable
            Without arguments. It must be idempotent, because it is run again if an interrupt cuts it short.
            What else it raises is reported by ``sys.unraisablehook`` if another call runs it.
        """
        if self.lock.take(PyThreadState_Get()):
            try:
                complete(job)
            finally:
                leave(<PyObject*> self)
            return
        self.jobs.append(job)
        while not self.lock.mark_busy():
            if self.lock.take(PyThreadState_Get()):
                self.leave_slowly()
                return

    cdef int wait(self) except -1:
        cdef bint is_taken
        if self.lock.get_owner() == PyThreadState_Get():
            raise ExecutionError(self.refusal or "a lock was taken twice by one thread.")
        while True:
            with nogil:
                is_taken = self.lock.wait()
            if is_taken:
                self.lock.set_owner(PyThreadState_Get())
                return 0
            PyErr_CheckSignals()

    cdef int leave_slowly(self) except -1:
        """Run the jobs, let go, wake who waits, and run what follows."""
        interrupt = None
        while True:
            while self.jobs:
                interrupt = _run_for_another(self.jobs.pop(0)) or interrupt
            self.lock.free()
            # Without a GIL another thread may have left a job meanwhile.
            if not self.jobs or not self.lock.take(PyThreadState_Get()):
                break
        while self.followers:
            interrupt = _run_for_another(_when_free(self.followers.pop(0), ())) or interrupt
        if interrupt is not None:
            raise interrupt
        return 0


cdef object _run_for_another(job):
    """Run a job of another call's; returns the interrupt that has come meanwhile, or None."""
    if job is None:
        return None
    try:
        complete(job)
    except Exception:
        PyErr_WriteUnraisable(job)
    except BaseException as error:
        return error
    return None


cdef int clear_frames() except -1:
    """Drop the local variables of the package's frames in the exception that is handled.

    TensorRT refuses much while an execution context exists. One in a local variable would exist for as long
    as somebody handles or keeps the exception.
    """
    cdef set seen = set()
    error = sys.exc_info()[1]
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace = error.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if frame.f_code.co_filename.startswith(_PACKAGE):
                try:
                    frame.clear()
                except RuntimeError:  # it still runs
                    pass
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return 0


def run_holding(gates, function, /, *args):
    """Call a function while no other thread is in any of some gates.

    Parameters
    ----------
    gates : iterable of Gate
        Entered in this order; all threads must have the same one.
    function : callable
        Called with `args`.

    Returns
    -------
    object
        What the function returns.

    Raises
    ------
    ExecutionError
        If the thread has one of the gates already.
    """
    cdef list wanted = list(gates)
    cdef Py_ssize_t entered = 0
    cdef Gate gate
    try:
        for gate in wanted:
            enter(<PyObject*> gate)
            entered += 1
        return function(*args)
    finally:
        _leave_all(wanted, entered)


cdef int _leave_all(list gates, Py_ssize_t count) except -1:
    interrupt = None
    while count > 0:
        count -= 1
        try:
            leave(<PyObject*> <Gate> gates[count])
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    return 0


def when_free(job, gates=(), /):
    """Run a job that may wait for gates, but not while this thread has one, nor while some gates are taken.

    For finalizers, which may run in the middle of anything: what they waited for might wait for them.

    Parameters
    ----------
    job : callable
        Without arguments. Run now, or by whoever has such a gate, after leaving it. As in `Gate.defer`.
    gates : iterable of Gate, optional
        Those that the job would wait for.
    """
    now = _when_free(job, gates)
    if now is not None:
        now()


cdef object _when_free(job, gates):
    """The job, if it may run now; else None, and it is left with somebody who has a gate."""
    cdef Gate gate = _gate_of_this_thread()
    if gate is not None:
        gate.followers.append(job)
        gate.lock.mark_busy()
        return None
    for gate in gates:
        if gate.lock.get_state() != FREE:
            gate.followers.append(job)
            if gate.lock.mark_busy():
                return None
            gate.followers.remove(job)
    return job


cdef Gate _gate_of_this_thread():
    cdef PyThreadState* me = PyThreadState_Get()
    cdef GateLock* lock
    cdef object found = None
    _lock_gates()
    lock = _first
    while lock != NULL and found is None:
        if lock.get_owner() == me:
            found = <object> lock.gate
        lock = lock.next
    _unlock_gates()
    return found


include "scope.pxi"


def _free_abandoned_gates():
    """In a forked child: free what threads had that do not exist here."""
    cdef PyThreadState* me = PyThreadState_Get()
    cdef GateLock* lock
    _renew_gates()
    lock = _first
    while lock != NULL:
        if lock.get_state() != FREE and lock.get_owner() != me:
            (<Gate> lock.gate).is_abandoned = True
            lock.free()
        lock = lock.next


os.register_at_fork(after_in_child=_free_abandoned_gates)
