"""The state that graphs of a program have baked in besides the arguments of a call."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t

from trt_rt._core.critical cimport Cell
from trt_rt._core.python_objects cimport dict_size, list_item, list_size

cdef extern from "Python.h":
    bint PyDict_Next(PyObject*, Py_ssize_t*, PyObject**, PyObject**) noexcept


@cython.final
cdef class ProgramState:
    """The modes and budgets of a program's engines, and the places of its parameters and buffers.

    Parameters
    ----------
    tables : list of dict
        Of tensors or None by name: the parameters and the buffers of each module. Empty for a program that
        is declared frozen.
    cells : list of Cell
        Each holds another object when something of an engine has changed: its module's modes, or its budget.
    """

    cdef list tables
    cdef list cells
    cdef list seen_values        # of `cells`
    cdef list seen_sizes         # of `tables`
    cdef list seen_tensors       # values of all tables, None included
    cdef uintptr_t* addresses    # of `seen_tensors`; 0 for None

    def __cinit__(self, list tables not None, list cells not None):
        self.tables = tables
        self.cells = cells

    def __dealloc__(self):
        PyMem_Free(self.addresses)

    def look(self):
        """Read the state, and remember it as that of the graphs. Call it when there are none."""
        cdef Py_ssize_t index
        cdef void* addresses
        # Held, so that no other object can come to lie at the address of one that is compared.
        self.seen_values = [cell.value for cell in self.cells]
        self.seen_sizes = [len(table) for table in self.tables]
        self.seen_tensors = [tensor for table in self.tables for tensor in table.values()]
        addresses = PyMem_Realloc(self.addresses, max(len(self.seen_tensors), 1) * sizeof(uintptr_t))
        if addresses == NULL:
            raise MemoryError()
        self.addresses = <uintptr_t*> addresses
        for index, tensor in enumerate(self.seen_tensors):
            self.addresses[index] = 0 if tensor is None else tensor.data_ptr()

    def is_same(self):
        """Whether nothing has changed since `look`."""
        return self.check()

    cdef bint check(self) except -1:
        cdef Py_ssize_t index
        if self.seen_values is None:
            return False
        for index in range(list_size(self.cells)):
            if (<Cell> list_item(self.cells, index))._value is not (
                <object> list_item(self.seen_values, index)
            ):
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
        for index in range(list_size(self.seen_tensors)):
            if (
                list_item(self.seen_tensors, index) != <PyObject*> None
                and not has_address(list_item(self.seen_tensors, index), self.addresses[index])
            ):
                return False
        return True
