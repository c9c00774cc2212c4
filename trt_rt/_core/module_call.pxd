from trt_rt._core.executor_pool cimport ExecutorPool


cdef class ModuleCallBase:
    cdef ExecutorPool _pool
    cdef bint _is_direct         # whether nn.Module's own call would do nothing but call forward
    cdef tuple _hooks            # dicts that hold hooks, the module's own and those of all modules

    cdef bint _has_hooks(self) noexcept
