"""Tells whether any of a number of dicts may have changed, without a look at their items."""

from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from trt_rt._core.python_objects cimport list_item, list_size

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030C0000
    #include <atomic>

    /* Since Python 3.12 the interpreter calls a function at each change of a dict that is watched. */
    static std::atomic<uint64_t> trt_rt_table_changes{0};

    static int trt_rt_count_change(PyDict_WatchEvent, PyObject *, PyObject *, PyObject *) {
        trt_rt_table_changes.fetch_add(1, std::memory_order_relaxed);
        return 0;
    }
    static int trt_rt_new_watcher(void) { return PyDict_AddWatcher(trt_rt_count_change); }
    static int trt_rt_watch(int watcher, PyObject *table) { return PyDict_Watch(watcher, table); }

    static inline uint64_t trt_rt_changes_of(PyObject *) {
        return trt_rt_table_changes.load(std::memory_order_relaxed);
    }
    #else
    /* An earlier Python gives a dict a new number at each change, higher than all that any dict had. */
    static int trt_rt_new_watcher(void) { return 0; }
    static int trt_rt_watch(int, PyObject *) { return 0; }

    static inline uint64_t trt_rt_changes_of(PyObject *tables) {
        uint64_t sum = 0;
        Py_ssize_t index, count = PyList_GET_SIZE(tables);
        for (index = 0; index < count; index++)
            sum += ((PyDictObject *) PyList_GET_ITEM(tables, index))->ma_version_tag;
        return sum;
    }
    #endif
    """
    int _new_watcher "trt_rt_new_watcher" () noexcept  # -1 with an exception set if there is none
    int _watch "trt_rt_watch" (int watcher, PyObject* table) except -1
    # A number that grows when one of the dicts changes, and perhaps also when another does.
    uint64_t changes_of "trt_rt_changes_of" (list tables) noexcept

cdef int _watcher = _new_watcher()

PyErr_Clear()  # an interpreter has eight watchers; other libraries may have taken them all


cdef bint watch_tables(list tables) except -1:
    """Let `changes_of` see the changes of some dicts, for as long as they live; False if it cannot."""
    cdef Py_ssize_t index
    if _watcher < 0:
        return False
    for index in range(list_size(<PyObject*> tables)):
        _watch(_watcher, list_item(<PyObject*> tables, index))
    return True
