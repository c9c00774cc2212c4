"""One captured run of a program, and its replay for calls whose arguments are plain tensors."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cuda.bindings cimport cydriver
from libc.stdint cimport int32_t, uint64_t, uintptr_t

from trt_rt._core.critical cimport Gate
from trt_rt._core.driver cimport is_capture_invalidated
from trt_rt._core.dlpack cimport MAX_DIMS, DLTensor, read_plain_tensor
from trt_rt._core.python_objects cimport list_item, raise_pending
from trt_rt._core.tensor_layout cimport TensorLayout, is_contiguous, layout_bytes, same_kind, same_shape

import torch

from trt_rt._core.allocation import empty_function
from trt_rt._core.capture_attempts import raise_invalidated
from trt_rt._core.dlpack import can_view

cdef enum:
    COPY_ALIGNMENT = 16          # of the addresses that a node of a graph can copy

# A call that the steady path does not serve; never returned to a caller.
cdef object NOT_SERVED = object()


@cython.final
@cython.no_gc_clear  # whoever owns it waits for its work before what it uses goes
cdef class ProgramGraph:
    """A captured run of a program, with copies of its arguments and results as nodes of the graph.

    The owner plans the copies with `copy_arguments` before the run is captured and `copy_results` at its end.
    If both can be nodes, calls with plain tensors of the same kinds are served without Python. Everything
    else copies by itself, and calls `replay`.

    Parameters
    ----------
    sequence : StreamSequence
        Of the program's calls.
    replay : callable or None
        On a CPU: ``replay(0)`` runs the program on the static tensors, and returns whether it gave results
        like those that were recorded. None on a GPU.
    take_other_results : callable or None
        On a CPU: returns the results of a run for which `replay` returned False.

    Attributes
    ----------
    gate : Gate
        Keeps replays out while the execution contexts of the graph are destroyed.
    last_used : int
        When it served a call last, as its owner counts.
    """

    cdef readonly Gate gate
    cdef public uint64_t last_used
    cdef StreamSequence sequence
    cdef CapturedGraph captured
    cdef object take_other_results
    cdef PyTypeObject* tensor_type
    cdef object allocate
    cdef bint is_dropped
    cdef bint takes_plain_tensors  # arguments are copied by the graph
    cdef readonly bint gives_results  # results are, too
    cdef tuple statics           # static tensors in place of positional arguments
    cdef ProgramInput* inputs
    cdef Py_ssize_t input_count
    cdef tuple results           # static tensors that the program returned
    cdef Py_ssize_t result_count
    cdef TensorLayout* layouts   # of the results
    cdef uintptr_t* static_results
    cdef uintptr_t* targets      # where this call's results go
    cdef list allocations        # for every result: arguments of the allocation call
    cdef object assemble         # builds what the program returns from a list of tensors; None: they are it
    cdef Py_ssize_t ring_size    # sets of results that are reused in turn; 0 for new ones
    cdef list ring               # of OutputBuffers
    cdef Py_ssize_t turn         # the next of the ring

    def __cinit__(self, StreamSequence sequence not None, replay, take_other_results):
        self.gate = Gate()
        self.sequence = sequence
        self.captured = CapturedGraph(replay, 0, 0)
        self.captured.copy_kernel = sequence.copy_kernel
        self.take_other_results = take_other_results
        self.tensor_type = <PyTypeObject*> torch.Tensor
        self.ring = []

    def __dealloc__(self):
        PyMem_Free(self.inputs)
        PyMem_Free(self.layouts)
        PyMem_Free(self.static_results)
        PyMem_Free(self.targets)

    @property
    def serves_plain_calls(self):
        """Whether calls with plain tensors of the same kinds are served without Python."""
        return self.takes_plain_tensors and self.gives_results and not self.is_dropped

    def copy_arguments(self, tuple statics not None):
        """Let the graph begin with copies from callers' tensors, if all can be copied as they lie in memory.

        Parameters
        ----------
        statics : tuple of torch.Tensor
            What the program reads in place of its positional arguments.
        """
        cdef Py_ssize_t index
        cdef int32_t dimension
        cdef DLTensor tensor
        cdef ProgramInput* each
        self.statics = statics
        self.input_count = len(statics)
        self.captured.input_count = self.input_count
        self.inputs = <ProgramInput*> PyMem_Calloc(max(self.input_count, 1), sizeof(ProgramInput))
        if self.inputs == NULL:
            raise MemoryError()
        for index in range(self.input_count):
            if not self._can_copy(statics[index], &tensor):
                return
            each = &self.inputs[index]
            describe_layout(&each.layout, &tensor)
            each.is_contiguous = is_contiguous(&tensor)
            if not each.is_contiguous:
                for dimension in range(tensor.ndim):
                    each.strides[dimension] = tensor.strides[dimension]
            each.static_address = <uintptr_t> tensor.data
            # The node is captured with a source of 0: no other node copies from there, so it can be found.
            each.address = 0
        for index in range(self.input_count):
            each = &self.inputs[index]
            self.captured.copy_from_caller(&each.address, each.static_address, layout_bytes(&each.layout))
        self.takes_plain_tensors = True

    def copy_results(self, tuple results not None, object assemble, Py_ssize_t buffers):
        """Let the graph end with copies to callers' tensors, if all can be copied as they lie in memory.

        Parameters
        ----------
        results : tuple of torch.Tensor
            What the program returned in the captured run.
        assemble : callable or None
            ``assemble(tensors)`` builds what a caller gets. None: the tensor, or the tuple of tensors.
        buffers : int
            Sets of results that are reused in turn. 1: the static results themselves. 0: new ones.
        """
        cdef Py_ssize_t index
        cdef DLTensor tensor
        cdef Py_ssize_t room = max(len(results), 1)
        self.results = results
        self.result_count = len(results)
        self.captured.output_count = self.result_count
        self.layouts = <TensorLayout*> PyMem_Calloc(room, sizeof(TensorLayout))
        self.static_results = <uintptr_t*> PyMem_Calloc(room, sizeof(uintptr_t))
        self.targets = <uintptr_t*> PyMem_Calloc(room, sizeof(uintptr_t))
        if self.layouts == NULL or self.static_results == NULL or self.targets == NULL:
            raise MemoryError()
        self.allocations = []
        for index in range(self.result_count):
            result = results[index]
            if not self._can_copy(result, &tensor) or not is_contiguous(&tensor):
                return
            describe_layout(&self.layouts[index], &tensor)
            self.static_results[index] = <uintptr_t> tensor.data
            self.allocations.append((tuple(result.shape), tuple(result.stride()), result.dtype))
        if buffers == 1:
            self.ring.append(self._new_buffers(results))
        else:
            for index in range(self.result_count):
                self.captured.copy_to_caller(
                    &self.targets[index], self.static_results[index], layout_bytes(&self.layouts[index])
                )
        self.allocate = empty_function(results[0].device) if results else None
        self.assemble = assemble
        self.ring_size = buffers
        self.gives_results = True

    cdef bint _can_copy(self, value, DLTensor* tensor) except -1:
        """Whether the bytes of a tensor of ours can be copied as they are. Describes it in `tensor`."""
        return (
            read_plain_tensor(self.sequence.api, self.tensor_type, <PyObject*> value, tensor)
            and tensor.ndim <= MAX_DIMS
            and tensor.dtype.code != DL_COMPLEX  # may wait to be conjugated, which DLPack does not tell
            and tensor.dtype.bits % 8 == 0
            and tensor.dtype.lanes == 1
            and can_view(value.dtype)
            and <uintptr_t> tensor.data % COPY_ALIGNMENT == 0
            and not is_negative(<PyObject*> value)
            and is_dense(tensor)
        )

    def capture(self, uintptr_t stream, function):
        """Capture the copies of arguments, what a function enqueues, and the copies of results.

        Here and not in Python, where an interrupt could leave the stream capturing.

        Parameters
        ----------
        stream : int
            A stream of PyTorch's, which is current.
        function : callable
            Without arguments. It may call `copy_results`.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        CaptureInvalidatedError
            If CUDA has invalidated the capture, and not because of the function.
        ExecutionError
            If CUDA refuses.
        """
        cdef cydriver.CUstream handle = <cydriver.CUstream> stream
        cdef bint is_invalidated = False
        need_context()
        self.captured.begin(handle)
        try:
            result = function()
        except BaseException as error:
            is_invalidated = is_capture_invalidated(handle)
            self.captured.abandon(handle)
            raise_invalidated(error, is_invalidated=is_invalidated)
            raise
        self.captured.end(handle)
        return result

    def replay(self):
        """Repeat the run on the current stream. Nothing is copied: the caller has filled the static tensors.

        Returns
        -------
        bool
            On a CPU: False if the program gave results that are not like those that were recorded.
        """
        cdef Py_ssize_t index
        if self.sequence.on_cuda:
            need_context()
        for index in range(self.input_count):
            self.inputs[index].address = self.inputs[index].static_address
        for index in range(self.result_count):
            self.targets[index] = self.static_results[index]
        return self.captured.launch(self.sequence.current())

    def hand_over(self):
        """Return the results of the last run as a caller gets them, after a run that copied nothing.

        Only if `gives_results`.
        """
        cdef OutputBuffers buffers = None
        cdef object result = None
        if self.ring_size == 0:
            result = self._new_results()
        else:
            buffers = self._next_buffers()
            result = self._result_of(buffers)
        if self.captured.to_callers is not None:
            self.captured.to_callers.take_addresses()
            self.captured.to_callers.copy(self.sequence.current(), self.sequence.on_cuda)
            self.captured.to_callers.forget_addresses()  # no executable was chosen for them
        return result if self.assemble is None else self.assemble(result)

    def drop(self):
        """Serve no call any more."""
        self.is_dropped = True

    cdef inline bint fits(self, PyObject** args, Py_ssize_t count) except -1:
        """Whether the arguments are plain tensors of the graph's kinds. Notes where they lie."""
        cdef Py_ssize_t index
        if count != self.input_count:
            return False
        for index in range(count):
            if not self._fits_one(&self.inputs[index], args[index]):
                return False
        return True

    cdef inline bint _fits_one(self, ProgramInput* expected, PyObject* value) except -1:
        cdef DLTensor tensor
        if (
            not read_plain_tensor(self.sequence.api, self.tensor_type, value, &tensor)
            or not same_kind(&expected.layout, &tensor)
            or not same_shape(&expected.layout, &tensor)
            or not (is_contiguous(&tensor) if expected.is_contiguous else same_strides(expected, &tensor))
            or <uintptr_t> tensor.data & (COPY_ALIGNMENT - 1)
        ):
            return False
        expected.address = <uintptr_t> tensor.data
        if expected.address == expected.static_address:
            return True  # nothing is copied
        if expected.address == 0:
            return layout_bytes(&expected.layout) == 0  # its storage was freed
        return not is_negative(value)

    cdef inline object run(self, uintptr_t stream):
        """Serve the call whose arguments `fits` has noted."""
        cdef OutputBuffers buffers = None
        cdef object result = None
        if self.ring_size == 0:
            result = self._new_results()
        else:
            buffers = self._next_buffers()
        if not self.captured.launch(stream):
            return self.take_other_results()
        if buffers is not None:
            result = self._result_of(buffers)
        return result if self.assemble is None else self.assemble(result)

    cdef object _new_results(self):
        """New tensors from PyTorch's caching allocator, for the caller's stream."""
        cdef Py_ssize_t index
        cdef tuple values
        if self.result_count == 1 and self.assemble is None:
            return self._new_result(0)
        values = PyTuple_New(self.result_count)
        for index in range(self.result_count):
            value = self._new_result(index)
            Py_INCREF(value)
            PyTuple_SET_ITEM(values, index, value)
        return values

    cdef object _new_result(self, Py_ssize_t index):
        cdef DLTensor tensor
        cdef object value
        cdef PyObject* arguments = list_item(<PyObject*> self.allocations, index)
        cdef PyObject* allocated = new_tensor(
            <PyObject*> self.allocate, arguments, self.sequence.api, &tensor
        )
        if allocated == NULL:
            raise_pending()
        value = <object> allocated
        Py_DECREF(value)  # `value` holds its own reference
        if not same_kind(&self.layouts[index], &tensor):
            _refuse_current_device(self.results[index].device)
        self.targets[index] = <uintptr_t> tensor.data
        return value

    cdef inline OutputBuffers _next_buffers(self):
        """The next set of the ring, where the results go; a single set is the static results."""
        if self.ring_size == 1:
            return <OutputBuffers> list_item(<PyObject*> self.ring, 0)
        return self._turn_ring()

    cdef OutputBuffers _turn_ring(self):
        cdef OutputBuffers buffers
        cdef Py_ssize_t index
        if self.turn == len(self.ring):
            with torch._C._InferenceMode(False):  # in C, so that no interrupt leaves it on
                self.ring.append(self._new_buffers(tuple([torch.empty_like(each) for each in self.results])))
        buffers = <OutputBuffers> self.ring[self.turn]
        self.turn = (self.turn + 1) % self.ring_size
        for index in range(self.result_count):
            self.targets[index] = buffers.addresses[index]
        return buffers

    cdef OutputBuffers _new_buffers(self, tuple owners):
        cdef OutputBuffers buffers = OutputBuffers(owners)
        buffers.set_layouts(self.layouts)
        return buffers

    cdef inline object _result_of(self, OutputBuffers buffers):
        """The views of a set. One that the caller has altered in place is made anew."""
        cdef Py_ssize_t index
        for index in range(self.result_count):
            buffers.reuse_view(index, self.sequence.api)
        if self.assemble is None:
            return buffers.result
        return buffers.views


cdef int _refuse_current_device(device) except -1:
    raise ExecutionError(
        f"a program on {device} was called while cuda:{torch.cuda.current_device()} is the current device, "
        f"where its results would be. Call it under torch.cuda.device({device.index})."
    )
