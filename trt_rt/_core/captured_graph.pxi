"""Work that is captured once and launched many times, with copies between callers' tensors and static ones.

This is the mechanism under every graph. It knows nothing of engines: whoever makes a graph says what is
copied, and enqueues the work.
"""

cimport cython
from cpython.object cimport PyObject
from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.driver cimport check
from trt_rt._core.python_objects cimport returns_true

cdef object _HOST_STREAM = 0


@cython.final
@cython.no_gc_clear  # whoever owns it waits for its work before what it uses goes
cdef class CapturedGraph:
    """A CUDA graph that starts with copies from callers' tensors and ends with copies to them.

    On a GPU, `begin` and `end` enclose the enqueueing of the work. On a CPU, where there are no CUDA graphs,
    a launch calls `replay` instead, so that everything around graphs (keys, static tensors, eviction) runs
    and is tested there too.

    Parameters
    ----------
    replay : callable
        ``replay(0)`` repeats the work on a CPU, and returns True if it did.
    input_count, output_count : int
        How many tensors can be copied before and after the work.
    """

    cdef GraphExecutables executables  # None on a CPU
    cdef object replay
    cdef Py_ssize_t input_count
    cdef Py_ssize_t output_count
    cdef cydriver.CUfunction copy_kernel  # NULL: copies are made beside the graph
    cdef TensorCopies from_callers  # before the work; None: nothing is copied
    cdef TensorCopies to_callers  # after the work, on the device
    cdef TensorCopies to_host    # after the work, to host memory; never nodes of the graph
    cdef bint has_copies
    cdef bint copies_beside      # some copies are not nodes of the graph

    def __cinit__(self, replay, Py_ssize_t input_count, Py_ssize_t output_count):
        self.replay = replay
        self.input_count = input_count
        self.output_count = output_count

    cdef int copy_from_caller(
        self, const uintptr_t* callers_address, uintptr_t static_address, uint64_t size
    ) except -1:
        """Copy a caller's tensor to a static one before the work. For this and the next two, see `add`."""
        if self.from_callers is None:
            self.from_callers = self._new_copies(self.input_count, False)
        return self._add(self.from_callers, callers_address, static_address, size)

    cdef int copy_to_caller(
        self, const uintptr_t* callers_address, uintptr_t static_address, uint64_t size
    ) except -1:
        """Copy a static tensor to a caller's after the work."""
        if self.to_callers is None:
            self.to_callers = self._new_copies(self.output_count, True)
        return self._add(self.to_callers, callers_address, static_address, size)

    cdef int copy_to_host(
        self, const uintptr_t* callers_address, uintptr_t static_address, uint64_t size
    ) except -1:
        """Copy a static tensor in host memory to a caller's, which no node of a graph can do."""
        if self.to_host is None:
            self.to_host = TensorCopies(self.output_count, True)
        return self._add(self.to_host, callers_address, static_address, size)

    cdef TensorCopies _new_copies(self, Py_ssize_t capacity, bint is_outward):
        cdef TensorCopies copies = TensorCopies(capacity, is_outward)
        copies.kernel = self.copy_kernel
        return copies

    cdef int _add(
        self, TensorCopies copies, const uintptr_t* callers_address, uintptr_t static_address, uint64_t size
    ) except -1:
        self.has_copies = True
        self.copies_beside |= copies.kernel == NULL
        return copies.add(callers_address, static_address, size)

    cdef int take_addresses(self) except -1:
        """Copy from and to the tensors of this call in the next launch."""
        cdef bint changed = False
        if self.from_callers is not None:
            changed |= self.from_callers.take_addresses()
        if self.to_callers is not None:
            changed |= self.to_callers.take_addresses()
        if self.to_host is not None:
            self.to_host.take_addresses()
        if changed and self.executables is not None:
            self.executables.choose()
        return 0

    cdef int begin(self, cydriver.CUstream stream) except -1:
        """Capture the copies from callers, and from then on whatever is enqueued on `stream`.

        `end` or `abandon` must follow. The engine's CUDA context must be current for all of them.
        """
        # Thread-local: another thread's cudaMalloc must not break this capture, nor this one its.
        check(
            cydriver.cuStreamBeginCapture(stream, cydriver.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
            b"cuStreamBeginCapture",
        )
        try:
            if self._copies_in_graph(self.from_callers) is not None:
                self.from_callers.capture(stream)
        except:
            self.abandon(stream)
            raise
        return 0

    cdef int end(self, cydriver.CUstream stream) except -1:
        """Capture the copies to callers, end the capture, and make a graph of it that can be launched."""
        cdef cydriver.CUgraph captured = NULL
        cdef GraphExecutables executables
        try:
            if self._copies_in_graph(self.to_callers) is not None:
                self.to_callers.capture(stream)
        except:
            self.abandon(stream)
            raise
        check(cydriver.cuStreamEndCapture(stream, &captured), b"cuStreamEndCapture")
        executables = GraphExecutables(
            self._copies_in_graph(self.from_callers), self._copies_in_graph(self.to_callers)
        )
        executables.make_first(captured, stream)
        self.executables = executables
        return 0

    cdef TensorCopies _copies_in_graph(self, TensorCopies copies):
        """Copies that are nodes of the graph; None if they are made beside it."""
        return None if copies is None or copies.kernel == NULL else copies

    cdef void abandon(self, cydriver.CUstream stream) noexcept:
        """End a capture that has failed."""
        cdef cydriver.CUgraph captured = NULL
        cydriver.cuStreamEndCapture(stream, &captured)
        if captured != NULL:
            cydriver.cuGraphDestroy(captured)

    cdef inline bint launch(self, uintptr_t stream) except -1:
        """Repeat the work in the order of `stream`, for the tensors of this call; False if it was refused."""
        if self.has_copies:
            self.take_addresses()
        if self.copies_beside:
            return self._launch_and_copy(stream)
        return self._launch_alone(stream)

    cdef bint _launch_and_copy(self, uintptr_t stream) except -1:
        self._copy_beside(self.from_callers, stream)
        if not self._launch_alone(stream):
            return False
        self._copy_beside(self.to_callers, stream)
        if self.to_host is not None:  # what follows from shapes and values was written at the capture
            self.to_host.copy(stream, False)
        return True

    cdef inline bint _launch_alone(self, uintptr_t stream) except -1:
        cdef PyObject* stack[2]
        if self.executables is not None:
            check(
                cydriver.cuGraphLaunch(self.executables.current, <cydriver.CUstream> stream), b"cuGraphLaunch"
            )
            return True
        stack[1] = <PyObject*> _HOST_STREAM
        return returns_true(<PyObject*> self.replay, stack, 1)

    cdef int copy_before(self, uintptr_t stream, bint on_cuda) except -1:
        """Make the copies that belong before the work, when it runs without the graph."""
        if self.from_callers is not None:
            self.from_callers.copy(stream, on_cuda)
        return 0

    cdef int copy_after(self, uintptr_t stream, bint on_cuda) except -1:
        """Make the copies that belong after the work, when it runs without the graph."""
        if self.to_callers is not None:
            self.to_callers.copy(stream, on_cuda)
        if self.to_host is not None:
            self.to_host.copy(stream, on_cuda)
        return 0

    cdef int _copy_beside(self, TensorCopies copies, uintptr_t stream) except -1:
        if copies is not None and copies.kernel == NULL:
            copies.copy(stream, self.executables is not None)
        return 0
