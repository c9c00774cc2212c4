"""The kernel that copies several tensors at once."""

from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t

cdef enum:
    COPIES_PER_LAUNCH = 16
    COPY_THREADS = 256           # per block


cdef struct TensorCopy:
    uint64_t target              # device addresses, multiples of 16
    uint64_t source
    uint64_t size                # bytes


cdef struct CopyList:
    TensorCopy copies[COPIES_PER_LAUNCH]  # the kernel's one parameter; row y of the grid does number y


cdef cydriver.CUfunction copy_kernel(cydriver.CUcontext context) except? NULL
cdef unsigned int blocks_for(uint64_t size) noexcept nogil
