"""Pre-allocated outputs: their memory, and the views of it that callers get."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy

from trt_rt._core.dlpack cimport DLExchangeAPI, DLTensor, read_tensor
from trt_rt._core.python_objects cimport list_item
from trt_rt._core.tensor_layout cimport TensorLayout, is_bindable_as

from trt_rt._core.dlpack import view_of


@cython.final
cdef class OutputBuffers:
    """One set of pre-allocated outputs.

    Callers get views, so that nothing they do to one (``resize_``, ``set_``) frees or moves the memory.
    """

    cdef tuple buffers           # the tensors that own the memory; nobody else has them
    cdef list views              # what callers get: the same memory, not resizable
    cdef object result           # the view, or a tuple of them
    cdef uintptr_t* addresses    # 0 for an output without elements
    cdef TensorLayout* layouts   # of the views, as callers should find them
    cdef TensorPlace* places     # of the views, when callers got them, if calls can read them

    def __cinit__(self, tuple buffers not None):
        cdef Py_ssize_t output
        self.buffers = buffers
        self.result = ()
        self.views = [None] * len(buffers)
        self.addresses = <uintptr_t*> PyMem_Calloc(max(len(buffers), 1), sizeof(uintptr_t))
        self.layouts = <TensorLayout*> PyMem_Calloc(max(len(buffers), 1), sizeof(TensorLayout))
        self.places = <TensorPlace*> PyMem_Calloc(max(len(buffers), 1), sizeof(TensorPlace))
        if self.addresses == NULL or self.layouts == NULL or self.places == NULL:
            raise MemoryError()
        for output in range(len(buffers)):
            self.addresses[output] = buffers[output].data_ptr()
            self._renew_view(output)

    def __dealloc__(self):
        PyMem_Free(self.addresses)
        PyMem_Free(self.layouts)
        PyMem_Free(self.places)

    cdef int set_layouts(self, const TensorLayout* layouts) except -1:
        memcpy(self.layouts, layouts, len(self.views) * sizeof(TensorLayout))
        return 0

    cdef inline int reuse_view(self, Py_ssize_t output, const DLExchangeAPI* api) except -1:
        """Let a call overwrite the memory of a view. One that the caller has altered is made anew."""
        if self._is_unaltered(output, api):
            return mark_overwritten(list_item(<PyObject*> self.views, output))
        return self._renew_view(output)

    cdef inline bint _is_unaltered(self, Py_ssize_t output, const DLExchangeAPI* api) except -1:
        """Whether the caller has left a view as it was: no other shape, memory, sign or gradient."""
        cdef PyObject* view = list_item(<PyObject*> self.views, output)
        cdef DLTensor tensor
        if has_readable_place(self.layouts[output].ndim):
            # The dispatch keys of a negative view differ, so its sign is compared too.
            return distance_of(view, &self.places[output]) == 0 and not requires_grad(view)
        if (
            not read_tensor(api, view, &tensor)
            or <uintptr_t> tensor.data != self.addresses[output]
            or not is_bindable_as(&tensor, &self.layouts[output])
        ):
            return False
        return not is_negative(view) and not requires_grad(view)

    cdef int _renew_view(self, Py_ssize_t output) except -1:
        """Replace the view that the caller has, whose memory the next call overwrites."""
        view = self.views[output]
        # The caller can have put any tensor in its place, with swap_tensors.
        if view is not None and not is_inference(<PyObject*> view):
            mark_overwritten(<PyObject*> view)
        view = self.views[output] = view_of(self.buffers[output])
        if has_readable_place(view.ndim):
            read_place(<PyObject*> view, &self.places[output])
        self.result = self.views[0] if len(self.views) == 1 else tuple(self.views)
        return 0
