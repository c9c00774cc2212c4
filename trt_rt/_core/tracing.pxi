"""Whether ``torch.jit.trace`` records what the calling thread does.

Its tensors look like any others. A call that did not ask would leave its results in the trace as constants.
"""

from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool

import ctypes

import torch

# c10::impl::tls_is_dispatch_keyset_included(DispatchKeySet), and ..._excluded: an operator's kernel runs
# untraced. The functions for one key do the same with more instructions.
ctypedef cpp_bool (*HasKeys)(uint64_t keys) noexcept nogil

cdef HasKeys _includes = NULL  # NULL: not known, and Python's function is used
cdef HasKeys _excludes = NULL
cdef uint64_t _tracer_key = 0  # a set of one


cdef inline bint may_be_traced() noexcept:
    """False if no operator that the calling thread calls is recorded: one function call, for every call."""
    return _includes == NULL or _includes(_tracer_key)


cdef bint is_traced_by_torchscript() except -1:
    """Whether operators that the calling thread calls now are recorded."""
    if _includes != NULL:
        return _includes(_tracer_key) and not _excludes(_tracer_key)
    return torch._C._get_tracing_state() is not None and not _runs_kernel()


cdef bint _runs_kernel() except -1:
    return torch._C._dispatch_tls_is_dispatch_key_excluded("Tracer")


cdef int _find_tracer() except -1:
    global _includes, _excludes, _tracer_key
    cdef uintptr_t address
    library = ctypes.CDLL(torch._C.__file__)  # finds what its dependencies define, libc10 among them
    excludes = library._ZN3c104impl31tls_is_dispatch_keyset_excludedENS_14DispatchKeySetE
    includes = library._ZN3c104impl31tls_is_dispatch_keyset_includedENS_14DispatchKeySetE
    _tracer_key = torch._C.DispatchKeySet(torch._C._dispatch_key_parse("Tracer")).raw_repr()
    address = ctypes.cast(excludes, ctypes.c_void_p).value
    memcpy(&_excludes, &address, sizeof(address))
    address = ctypes.cast(includes, ctypes.c_void_p).value
    memcpy(&_includes, &address, sizeof(address))
    return 0


try:
    _find_tracer()
except AttributeError:  # a PyTorch that names its functions differently
    _includes = NULL


def records_torchscript():
    """Whether operators that the calling thread calls now are recorded."""
    return is_traced_by_torchscript()
