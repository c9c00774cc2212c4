"""The state that graphs of a program have baked in besides the arguments of a call."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from trt_rt._core.critical cimport Cell
from trt_rt._core.python_objects cimport dict_size, list_item, list_size

import torch

from trt_rt.errors import ExecutionError

cdef extern from "Python.h":
    bint PyDict_Next(PyObject*, Py_ssize_t*, PyObject**, PyObject**) noexcept


cdef struct SeenTensor:
    PyObject* tensor             # `ProgramState.seen_tensors` keeps it
    TensorPlace place


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
    cdef list seen_values        # of `cells`; None before the first look
    cdef list seen_sizes         # of `tables`
    cdef list seen_tensors       # values of all tables in turn, None included
    cdef uint64_t seen_changes   # `changes_of` the tables when they last held `seen_tensors`
    cdef bint is_watched         # whether `changes_of` sees the changes of the tables
    cdef SeenTensor* seen        # the tensors among `seen_tensors`, if calls can read their places
    cdef Py_ssize_t seen_count
    cdef list seen_places        # else the places of `seen_tensors`, as Python describes them

    def __cinit__(self, list tables not None, list cells not None):
        self.tables = tables
        self.cells = cells
        self.is_watched = watch_tables(tables)

    def __dealloc__(self):
        PyMem_Free(self.seen)

    def look(self):
        """Read the state, and remember it as that of the graphs. Call it when there are none.

        Raises
        ------
        ExecutionError
            If a parameter or a buffer is sparse: a graph cannot follow its memory.
        """
        self.seen_values = None
        self.seen_changes = changes_of(self.tables)
        self.seen_sizes = [len(table) for table in self.tables]
        # Kept, so that no new object can have the address of one that is compared.
        self.seen_tensors = [tensor for table in self.tables for tensor in table.values()]
        for table in self.tables:
            for name, tensor in table.items():
                if tensor is not None and tensor.layout != torch.strided:
                    _refuse_parameter(name, tensor)
        if tensor_state_is_known():
            self._note_places()
        else:
            self.seen_places = _places_in_python(self.seen_tensors)
        self.seen_values = [cell.value for cell in self.cells]

    cdef int _note_places(self) except -1:
        cdef Py_ssize_t index
        cdef SeenTensor* seen
        cdef list tensors = [tensor for tensor in self.seen_tensors if tensor is not None]
        cdef void* room = PyMem_Realloc(self.seen, max(len(tensors), 1) * sizeof(SeenTensor))
        if room == NULL:
            raise MemoryError()
        self.seen = <SeenTensor*> room
        self.seen_count = len(tensors)
        for index in range(self.seen_count):
            seen = &self.seen[index]
            seen.tensor = list_item(<PyObject*> tensors, index)
            read_place(seen.tensor, &seen.place)
        return 0

    def is_same(self):
        """Whether nothing has changed since `look`."""
        return self.check()

    cdef bint check(self) except -1:
        cdef Py_ssize_t index
        if self.seen_values is None:
            return False
        for index in range(list_size(<PyObject*> self.cells)):
            if (<Cell> list_item(<PyObject*> self.cells, index))._value is not (
                <object> list_item(<PyObject*> self.seen_values, index)
            ):
                return False
        if list_size(<PyObject*> self.tables) == 0:
            return True
        return self._has_same_tensors() and self._has_same_places()

    cdef inline bint _has_same_tensors(self) except -1:
        cdef uint64_t changes = changes_of(self.tables)
        if self.is_watched and changes == self.seen_changes:
            return True
        if not self._find_same_tensors():
            return False
        self.seen_changes = changes
        return True

    cdef bint _find_same_tensors(self) except -1:
        cdef Py_ssize_t index, position
        cdef Py_ssize_t seen = 0
        cdef PyObject* key
        cdef PyObject* value
        cdef dict table
        for index in range(list_size(<PyObject*> self.tables)):
            table = <dict> list_item(<PyObject*> self.tables, index)
            with cython.critical_section(table):
                if dict_size(<PyObject*> table) != <Py_ssize_t> self.seen_sizes[index]:
                    return False
                position = 0
                while PyDict_Next(<PyObject*> table, &position, &key, &value):
                    if value != list_item(<PyObject*> self.seen_tensors, seen):
                        return False
                    seen += 1
        return True

    cdef bint _has_same_places(self) except -1:
        """Whether no tensor has got other memory (``tensor.data = other``), or lies otherwise in it."""
        cdef Py_ssize_t index
        cdef uint64_t difference = 0
        if _impl_offset == 0:
            return self.seen_places == _places_in_python(self.seen_tensors)
        for index in range(self.seen_count):
            difference |= distance_of(self.seen[index].tensor, &self.seen[index].place)
        return difference == 0


cdef list _places_in_python(list tensors):
    """Where the elements of tensors lie, and how they are to be read."""
    return [
        None
        if tensor is None
        else (
            tensor.data_ptr(),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
            tensor.is_neg(),
            tensor.is_conj(),
        )
        for tensor in tensors
    ]


cdef int _refuse_parameter(name, tensor) except -1:
    raise ExecutionError(
        f"a program cannot be run as one CUDA graph, because its parameter or buffer {name!r} has the layout "
        f"{tensor.layout}: the graph cannot follow its memory. Make it dense with to_dense(), or leave "
        "whole_graph=True."
    )
