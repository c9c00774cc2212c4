from cpython.object cimport PyObject

from trt_rt._core.executor_pool cimport ExecutorPool
from trt_rt._core.vectorcall cimport vectorcallfunc


cdef class ModuleCallBase:
    cdef vectorcallfunc _vectorcall
    cdef ExecutorPool _pool
    cdef bint _is_direct         # whether nn.Module's own call would do nothing but call forward
    cdef list _retired           # hooks of before
    cdef tuple _hooks            # dicts that hold hooks, the module's own and those of all modules

    cdef object _run(self, PyObject** args, Py_ssize_t count, object out)
    cdef bint _has_hooks(self) noexcept
