"""The state of a tensor that DLPack does not report: for autograd, for lazy views, and where it lies.

A call asks whether its tensors still have to be negated and whether they require grad, and it tells autograd
that it overwrites them. A call of a program asks whether the program's parameters lie where they lay. PyTorch
has Python methods for all of this, which would make a call noticeably slower. So the answers are read where
PyTorch keeps them, and its own C++ functions are called. `tensor_state_search.pxi` finds the places. If it
does not find them, calls use the Python methods.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool

import torch

from trt_rt.errors import InputValueError


cdef int _refuse_inference() except *:
    raise InputValueError(
        "an inference tensor can be written in inference mode only. Pass a clone of it, or call under "
        "torch.inference_mode()."
    )


# PyTorch's stable C ABI (torch/csrc/inductor/aoti_torch/c/shim.h). A handle is the address of an at::Tensor.
ctypedef int32_t (*GetCode)(void* const* tensor, int32_t* code) noexcept nogil
ctypedef cpp_bool (*RequiresGrad)(const void* impl) noexcept nogil
ctypedef void (*BumpVersion)(void* const* tensor) except +_refuse_inference

# A torch.Tensor is a Python object with the address of a TensorImpl, which has the set of its dispatch keys.
cdef Py_ssize_t _impl_offset = 0  # 0: not known, and the Python methods are used
cdef Py_ssize_t _keys_offset = 0
cdef uint64_t _negative_key = 0   # the bit of a view that is still to be negated
cdef uint64_t _tracked_key = 0    # the bit that inference tensors lack
cdef RequiresGrad _requires_grad = NULL  # c10::TensorImpl::requires_grad() const
cdef BumpVersion _bump_version = NULL    # torch::autograd::impl::bump_version(const at::Tensor&)

cdef GetCode _get_dtype = NULL

# Where a TensorImpl has the address of its version counter, and where that has the version.
cdef Py_ssize_t _counter_offset = 0
cdef Py_ssize_t _version_offset = 0

# Where a TensorImpl has its storage and its layout, and where a StorageImpl has the address of its memory.
cdef Py_ssize_t _storage_offset = 0
cdef Py_ssize_t _layout_offset = 0
cdef Py_ssize_t _memory_offset = 0

cdef enum:
    # The layout in a TensorImpl: the number of dimensions, five sizes, five strides, the offset in the
    # storage, the number of elements, and a word with the dtype and the device. Sizes and strides of more
    # dimensions lie elsewhere. Their address is then in the place of the first size.
    LAYOUT_WORDS = 14
    INLINE_DIMS = 5


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* In pairs: a compiler would keep 14 sums of a base and an offset in more registers than there are. */
    typedef uint64_t TrtRtPair __attribute__((vector_size(16)));

    static inline uint64_t trt_rt_difference(const uint64_t *words, const uint64_t *others, int count)
    {
        TrtRtPair one, other, difference = {0, 0};
        for (int word = 0; word < count; word += 2) {
            memcpy(&one, words + word, sizeof(one));
            memcpy(&other, others + word, sizeof(other));
            difference |= one ^ other;
        }
        return difference[0] | difference[1];
    }

    /* Backward passes on other threads may read the version meanwhile. */
    static inline void trt_rt_increment(uint32_t *version)
    {
        __atomic_fetch_add(version, 1, __ATOMIC_SEQ_CST);
    }
    """
    # 0 if an even number of words are the same.
    uint64_t _difference "trt_rt_difference" (const uint64_t*, const uint64_t*, int count) noexcept
    void increment "trt_rt_increment" (uint32_t* version) noexcept


cdef struct TensorPlace:
    void* storage                # NULL for a tensor without one
    void* memory                 # of the storage
    uint64_t keys                # dispatch keys: those of a view that waits to be negated or conjugated too
    uint64_t layout[LAYOUT_WORDS]


cdef inline void* _impl_of(PyObject* tensor) noexcept:
    return (<void**> (<char*> tensor + _impl_offset))[0]


cdef inline uint64_t _keys_of(PyObject* tensor) noexcept:
    return (<uint64_t*> (<char*> _impl_of(tensor) + _keys_offset))[0]


cdef inline bint is_negative(PyObject* tensor) except -1:
    """Whether a tensor is a view whose elements still have to be negated."""
    if _impl_offset != 0:
        return (_keys_of(tensor) & _negative_key) != 0
    return torch.Tensor.is_neg(<object> tensor)


cdef inline bint is_inference(PyObject* tensor) except -1:
    """Whether a tensor was made in inference mode."""
    if _impl_offset != 0:
        return (_keys_of(tensor) & _tracked_key) == 0
    return torch.Tensor.is_inference(<object> tensor)


cdef inline bint requires_grad(PyObject* tensor) except -1:
    """Whether a tensor requires grad, by itself or by what it was computed from."""
    if _impl_offset != 0:
        return _requires_grad(_impl_of(tensor))
    return (<object> tensor).requires_grad


cdef inline uint32_t* version_of(PyObject* tensor) noexcept:
    """Where a tensor's version is. NULL for an inference tensor, and if calls cannot read it.

    A view has the same one. It lives as long as a tensor that has it.
    """
    cdef char* counter = NULL
    if _impl_offset != 0:
        counter = (<char**> (<char*> _impl_of(tensor) + _counter_offset))[0]
    if counter == NULL:
        return NULL
    return <uint32_t*> (counter + _version_offset)


cdef inline int mark_overwritten(PyObject* tensor) except -1:
    """Tell autograd that a call overwrites a tensor, so that a backward that has saved it raises."""
    cdef void* impl
    cdef uint32_t* version
    if _impl_offset == 0:
        torch.autograd.graph.increment_version(<object> tensor)
        return 0
    version = version_of(tensor)
    if version != NULL:
        increment(version)
    else:
        impl = _impl_of(tensor)
        _bump_version(&impl)  # refuses an inference tensor outside of inference mode
    return 0


cdef inline void* _storage_of(void* impl) noexcept:
    return (<void**> (<char*> impl + _storage_offset))[0]


cdef inline void* _memory_of(void* storage) noexcept:
    return NULL if storage == NULL else (<void**> (<char*> storage + _memory_offset))[0]


cdef inline const uint64_t* _layout_of(void* impl) noexcept:
    return <const uint64_t*> (<char*> impl + _layout_offset)


cdef inline bint has_readable_place(Py_ssize_t ndim) noexcept:
    """Whether `distance_of` notices every change of a tensor of so many dimensions.

    Sizes and strides of more dimensions lie elsewhere, and PyTorch can change them there.
    """
    return _impl_offset != 0 and ndim <= INLINE_DIMS


cdef inline void read_place(PyObject* tensor, TensorPlace* place) noexcept:
    """Note where a tensor's elements lie. May be called only if `_impl_offset` is known."""
    cdef void* impl = _impl_of(tensor)
    place.storage = _storage_of(impl)
    place.memory = _memory_of(place.storage)
    place.keys = _keys_of(tensor)
    memcpy(place.layout, _layout_of(impl), sizeof(place.layout))


cdef inline uint64_t distance_of(PyObject* tensor, const TensorPlace* place) noexcept:
    """0 if a tensor's elements lie where they lay at `read_place`.

    Only what belongs to the tensor now is read: what it had at `read_place` may have been freed.
    """
    cdef void* impl = _impl_of(tensor)
    cdef void* storage = _storage_of(impl)
    return (
        (<uintptr_t> storage ^ <uintptr_t> place.storage)
        | (<uintptr_t> _memory_of(storage) ^ <uintptr_t> place.memory)
        | (_keys_of(tensor) ^ place.keys)
        | _difference(_layout_of(impl), place.layout, LAYOUT_WORDS)
    )
