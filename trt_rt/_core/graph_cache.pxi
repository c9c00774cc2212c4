"""The captured graphs of an executor, by shapes and addresses.

A loop over several shapes, or one whose tensors lie at a few addresses in turn, finds each graph again by a
scan of integers.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from trt_rt._core.python_objects cimport items


@cython.final
@cython.no_gc_clear
cdef class GraphCache:
    """A bounded number of graphs, of which the least recently used goes first.

    Parameters
    ----------
    capacity : int
        How many graphs at most.
    """

    cdef Py_ssize_t capacity
    cdef uint64_t clock
    cdef Py_ssize_t room         # hashes that fit the memory at `hashes`
    cdef uint64_t* hashes        # of the key of each graph: the search compares these first
    cdef tuple graphs            # of EngineGraph; the collector would empty a list before its owner waits

    def __cinit__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.graphs = ()

    def __dealloc__(self):
        PyMem_Free(self.hashes)

    cdef EngineGraph find(self, uint64_t key_hash, ShapeRecord record, const uintptr_t* addresses):
        """The graph of these shapes and addresses, or None."""
        cdef Py_ssize_t index
        for index in range(len(self.graphs)):
            if self.hashes[index] == key_hash:
                graph = <EngineGraph> items(self.graphs)[index]
                if graph.is_for(record, addresses):
                    return graph
        return None

    cdef bint has_room(self, Py_ssize_t share) noexcept:
        """Whether one of `share` equal parts of the capacity has room for another graph."""
        return len(self.graphs) < self.capacity // share + (self.capacity % share != 0)

    cdef EngineGraph least_recent(self):
        """The graph to let go of before another is added, or None while there is room."""
        if len(self.graphs) < self.capacity:
            return None
        return min(self.graphs, key=_last_use_of_graph)

    cdef int remove(self, EngineGraph graph) except -1:
        cdef Py_ssize_t index = self.graphs.index(graph)
        cdef Py_ssize_t after
        for after in range(index + 1, len(self.graphs)):
            self.hashes[after - 1] = self.hashes[after]
        self.graphs = self.graphs[:index] + self.graphs[index + 1:]
        return 0

    cdef int add(self, uint64_t key_hash, EngineGraph graph) except -1:
        cdef Py_ssize_t count = len(self.graphs)
        cdef void* grown
        if count == self.room:
            grown = PyMem_Realloc(self.hashes, 2 * (count + 1) * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError()
            self.hashes = <uint64_t*> grown
            self.room = 2 * (count + 1)
        self.hashes[count] = key_hash
        self.graphs += (graph,)
        self.mark_used(graph)
        return 0

    cdef inline void mark_used(self, EngineGraph graph) noexcept:
        self.clock += 1
        graph.last_used = self.clock

    cdef int clear(self) except -1:
        self.graphs = ()
        return 0


def _last_use_of_graph(EngineGraph graph):
    return graph.last_used


cdef uint64_t hash_key(ShapeRecord record, const uintptr_t* addresses, Py_ssize_t count) noexcept:
    return hash_words(<const int64_t*> addresses, count) ^ <uint64_t> <uintptr_t> <PyObject*> record
