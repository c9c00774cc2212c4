from trt_rt._core.executor cimport Executor


cdef class ModuleCallBase:
    cdef Executor _executor
    cdef bint _is_direct         # nothing but hooks can ask for nn.Module's own call
    cdef tuple _hooks            # every dict that can hold a hook for this module

    cdef bint _has_hooks(self) noexcept
