"""Tensors that every call of a kind overwrites, which autograd must know."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from trt_rt._core.python_objects cimport items, tuple_size

import torch

from trt_rt._core.plain_pytorch import plain_pytorch


@cython.final
cdef class OverwrittenTensors:
    """Tensors whose versions all rise together.

    A tensor object can get another tensor's memory and version counter, by ``swap_tensors``, and then its
    own counter may be freed. So the counters are kept by aliases, which nobody else has.

    Parameters
    ----------
    tensors : tuple of torch.Tensor
        What is overwritten.
    """

    cdef tuple tensors           # those without a counter that is known: `mark_overwritten` does it for each
    cdef tuple aliases           # of the others
    cdef uint32_t** versions     # of the aliases
    cdef Py_ssize_t count

    def __cinit__(self, tuple tensors not None):
        cdef uint32_t* version
        self.versions = <uint32_t**> PyMem_Calloc(max(len(tensors), 1), sizeof(uint32_t*))
        if self.versions == NULL:
            raise MemoryError()
        aliases = []
        others = []
        for tensor in tensors:
            version = version_of(<PyObject*> tensor)
            with plain_pytorch():
                alias = tensor.detach()
            if version != NULL and version_of(<PyObject*> alias) == version:
                self.versions[self.count] = version
                self.count += 1
                aliases.append(alias)
            else:
                others.append(tensor)
        self.tensors = tuple(others)
        self.aliases = tuple(aliases)

    def __dealloc__(self):
        PyMem_Free(self.versions)

    cdef inline int mark(self) except -1:
        """Tell autograd that a call overwrites the tensors."""
        cdef Py_ssize_t index
        for index in range(self.count):
            increment(self.versions[index])
        for index in range(tuple_size(<PyObject*> self.tensors)):
            mark_overwritten(items(self.tensors)[index])
        return 0
