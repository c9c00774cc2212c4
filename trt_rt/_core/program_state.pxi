"""What graphs of a program have baked in besides the arguments of a call."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

from trt_rt._core.critical cimport Cell
from trt_rt._core.dlpack cimport DLExchangeAPI, DLTensor, read_tensor, torch_exchange_api
from trt_rt._core.python_objects cimport dict_size, list_item, list_size

import torch

cdef extern from "Python.h":
    bint PyDict_Next(PyObject*, Py_ssize_t*, PyObject**, PyObject**) noexcept

# PyTorch's own comparison of many addresses. Only builds for CUDA have it.
cdef object _same_addresses = getattr(torch._C, "_tensors_data_ptrs_at_indices_equal", None)


@cython.final
cdef class ProgramState:
    """The modes of a program's engines, and the places of its parameters and buffers.

    Parameters
    ----------
    tables : list of dict
        Of tensors or None by name: the parameters and the buffers of each module. Empty for a program that
        is declared frozen.
    modes : list of Cell
        Each holds the modes of one engine module.
    """

    cdef list tables
    cdef list modes
    cdef list seen_modes         # the values of `modes`
    cdef list seen_sizes         # of `tables`
    cdef list seen_tensors       # values of all tables, None included
    cdef list present            # those that are tensors
    cdef list addresses          # of `present`
    cdef list indices

    def __cinit__(self, list tables not None, list modes not None):
        self.tables = tables
        self.modes = modes

    def look(self):
        """Read the state, and remember it as that of the graphs. Call it when there are none."""
        # Held, so that no other object can come to lie at the address of one that is compared.
        self.seen_modes = [cell.value for cell in self.modes]
        self.seen_sizes = [len(table) for table in self.tables]
        self.seen_tensors = [tensor for table in self.tables for tensor in table.values()]
        self.present = [tensor for tensor in self.seen_tensors if tensor is not None]
        self.addresses = [tensor.data_ptr() for tensor in self.present]
        self.indices = list(range(len(self.present)))

    def is_same(self):
        """Whether nothing has changed since `look`."""
        return self.check()

    cdef bint check(self) except -1:
        cdef Py_ssize_t index
        if self.seen_modes is None:
            return False
        for index in range(list_size(self.modes)):
            if (<Cell> list_item(self.modes, index))._value is not <object> list_item(self.seen_modes, index):
                return False
        return list_size(self.tables) == 0 or (self._has_same_tensors() and self._has_same_addresses())

    cdef bint _has_same_tensors(self) except -1:
        cdef Py_ssize_t index, position
        cdef Py_ssize_t seen = 0
        cdef PyObject* key
        cdef PyObject* value
        cdef dict table
        for index in range(list_size(self.tables)):
            table = <dict> list_item(self.tables, index)
            with cython.critical_section(table):
                if dict_size(<PyObject*> table) != <Py_ssize_t> self.seen_sizes[index]:
                    return False
                position = 0
                while PyDict_Next(<PyObject*> table, &position, &key, &value):
                    if value != list_item(self.seen_tensors, seen):
                        return False
                    seen += 1
        return True

    cdef bint _has_same_addresses(self) except -1:
        """Whether no tensor has been given other memory (``tensor.data = other``)."""
        cdef Py_ssize_t index
        cdef DLTensor tensor
        cdef DLExchangeAPI* api
        if _same_addresses is not None:
            return _same_addresses(self.present, self.addresses, self.indices)
        api = torch_exchange_api()
        for index in range(list_size(self.present)):
            if (
                not read_tensor(api, list_item(self.present, index), &tensor)
                or <uintptr_t> tensor.data != <uintptr_t> self.addresses[index]
            ):
                return False
        return True
