"""The kernel that copies several tensors at once.

A node of a CUDA graph that runs it can be given other addresses before each launch of the graph, with one
call for all tensors. The graph's launch is then the only thing that goes to the GPU.
"""

from cuda.bindings cimport cydriver
from libc.stdint cimport uint64_t, uintptr_t

from trt_rt._core.driver cimport check

cdef enum:
    COPIES_PER_LAUNCH = 16
    COPY_THREADS = 256           # per block
    VECTORS_PER_THREAD = 4
    MAX_BLOCKS = 2048


cdef struct TensorCopy:
    uint64_t target              # device addresses, multiples of 16
    uint64_t source
    uint64_t size                # bytes


cdef struct CopyList:
    TensorCopy copies[COPIES_PER_LAUNCH]  # the kernel's one parameter; row y of the grid does number y


# Row y of the grid copies tensor y. Each thread copies 16 bytes in turn, then up to 15 threads one byte each.
# The driver compiles this for the device that it is loaded on.
cdef bytes COPY_KERNEL = b"""
.version 6.0
.target sm_70
.address_size 64

.visible .entry trt_rt_copy(.param .align 8 .b8 copies[384])
{
    .reg .pred %done;
    .reg .b32 %block, %blocks, %row, %thread, %threads, %a, %b, %c, %d;
    .reg .b64 %entry, %target, %source, %size, %index, %stride, %offset, %end, %from, %to;

    mov.u32 %row, %ctaid.y;
    mul.wide.u32 %offset, %row, 24;
    mov.b64 %entry, copies;
    add.u64 %entry, %entry, %offset;
    ld.param.u64 %target, [%entry];
    ld.param.u64 %source, [%entry+8];
    ld.param.u64 %size, [%entry+16];
    cvta.to.global.u64 %target, %target;
    cvta.to.global.u64 %source, %source;

    mov.u32 %block, %ctaid.x;
    mov.u32 %blocks, %nctaid.x;
    mov.u32 %threads, %ntid.x;
    mov.u32 %thread, %tid.x;
    mul.wide.u32 %index, %block, %threads;
    cvt.u64.u32 %offset, %thread;
    add.u64 %index, %index, %offset;
    mul.wide.u32 %stride, %blocks, %threads;
    shl.b64 %stride, %stride, 4;
    shl.b64 %offset, %index, 4;
    and.b64 %end, %size, -16;

VECTORS:
    setp.ge.u64 %done, %offset, %end;
    @%done bra TAIL;
    add.u64 %from, %source, %offset;
    add.u64 %to, %target, %offset;
    ld.global.v4.u32 {%a, %b, %c, %d}, [%from];
    st.global.v4.u32 [%to], {%a, %b, %c, %d};
    add.u64 %offset, %offset, %stride;
    bra VECTORS;

TAIL:
    add.u64 %offset, %end, %index;
    setp.ge.u64 %done, %offset, %size;
    @%done bra DONE;
    add.u64 %from, %source, %offset;
    add.u64 %to, %target, %offset;
    ld.global.u8 %a, [%from];
    st.global.u8 [%to], %a;

DONE:
    ret;
}
"""

# CUDA context -> kernel, or 0; kept while the process lives, as contexts are.
cdef dict _copy_kernels = {}


cdef cydriver.CUfunction copy_kernel(StreamOrder order) except? NULL:
    """The kernel on a device; NULL if it cannot be loaded.

    Called before the first capture, because loading a kernel might invalidate the capture of another thread.
    The kernel can never be loaded where the driver compiles nothing: with CUDA_DISABLE_PTX_JIT set, or
    without the driver's compiler library, which some containers lack. After any other failure, such as a lack
    of memory, the next call tries again.
    """
    order.push_context()
    try:
        return _kernel_in(order.context)
    finally:
        order.pop_context()


cdef cydriver.CUfunction _kernel_in(cydriver.CUcontext context) except? NULL:
    cdef cydriver.CUresult result
    cdef cydriver.CUmodule module = NULL
    cdef cydriver.CUfunction kernel = NULL
    known = _copy_kernels.get(<uintptr_t> <void*> context)
    if known is None:
        result = cydriver.cuModuleLoadData(&module, <const char*> COPY_KERNEL)
        if result == cydriver.CUDA_SUCCESS:
            check(cydriver.cuModuleGetFunction(&kernel, module, b"trt_rt_copy"), b"cuModuleGetFunction")
        elif not _cannot_compile(result):
            return NULL
        known = _copy_kernels[<uintptr_t> <void*> context] = <uintptr_t> <void*> kernel
    return <cydriver.CUfunction> <void*> <uintptr_t> known


cdef bint _cannot_compile(cydriver.CUresult result) noexcept:
    return (
        result == cydriver.CUDA_ERROR_JIT_COMPILER_NOT_FOUND
        or result == cydriver.CUDA_ERROR_JIT_COMPILATION_DISABLED
        or result == cydriver.CUDA_ERROR_INVALID_PTX
        or result == cydriver.CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        or result == cydriver.CUDA_ERROR_NO_BINARY_FOR_GPU
    )


cdef unsigned int blocks_for(uint64_t size) noexcept nogil:
    """How many blocks of the kernel share the copying of `size` bytes."""
    cdef uint64_t wanted = size // (16 * COPY_THREADS * VECTORS_PER_THREAD) + 1
    return <unsigned int> min(wanted, <uint64_t> MAX_BLOCKS)
