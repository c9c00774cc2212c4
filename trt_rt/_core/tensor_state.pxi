"""The state of a tensor for autograd and lazy views, which DLPack does not report.

A call asks whether its tensors still have to be negated and whether they require grad, and it tells autograd
that it overwrites them. PyTorch has Python methods for all three, which would make a call noticeably slower.
So the answers are read where PyTorch keeps them, and its own C++ functions are called. The places are found
when this module is imported, and checked against what the Python methods say. If anything is not as
expected, calls use the Python methods.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool

from trt_rt._core.tensor_layout cimport TensorLayout

import ctypes

import torch

from trt_rt.errors import InputValueError


cdef int _refuse_inference() except *:
    raise InputValueError(
        "an inference tensor can be written in inference mode only. Pass a clone of it, or call under "
        "torch.inference_mode()."
    )


# PyTorch's stable C ABI (torch/csrc/inductor/aoti_torch/c/shim.h). A handle is the address of an at::Tensor.
ctypedef int32_t (*GetPointer)(void* const* tensor, void** pointer) noexcept nogil
ctypedef int32_t (*GetSizes)(void* const* tensor, int64_t** sizes) noexcept nogil
ctypedef int32_t (*GetNumber)(void* const* tensor, int64_t* number) noexcept nogil
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

cdef GetPointer _get_data = NULL
cdef GetSizes _get_sizes = NULL
cdef GetSizes _get_strides = NULL
cdef GetNumber _get_rank = NULL
cdef GetCode _get_dtype = NULL

# The members of a TensorImpl lie within so many bytes in every version so far.
cdef enum:
    IMPL_SIZE = 192


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


cdef inline int mark_overwritten(PyObject* tensor) except -1:
    """Tell autograd that a call overwrites a tensor, so that a backward that has saved it raises."""
    cdef void* impl
    if _impl_offset != 0:
        impl = _impl_of(tensor)
        _bump_version(&impl)
    else:
        torch.autograd.graph.increment_version(<object> tensor)
    return 0


cdef inline int32_t dtype_number(PyObject* tensor) noexcept:
    """PyTorch's number of a tensor's dtype; -1 if calls cannot read it."""
    cdef int32_t number = -1
    cdef void* impl
    if _impl_offset != 0:
        impl = _impl_of(tensor)
        _get_dtype(&impl, &number)
    return number


cdef inline bint has_address(PyObject* tensor, uintptr_t address) except -1:
    """Whether a tensor's data lies at an address."""
    cdef void* impl
    cdef void* data = NULL
    if _impl_offset != 0:
        impl = _impl_of(tensor)
        _get_data(&impl, &data)
        return <uintptr_t> data == address
    return <uintptr_t> (<object> tensor).data_ptr() == address


cdef inline bint is_contiguous_tensor(
    PyObject* tensor, uintptr_t address, int32_t dtype, const TensorLayout* layout
) noexcept:
    """Whether a tensor has this address, `dtype_number` and shape, and its elements one after the other.

    May be called only if `dtype_number` can be read.
    """
    cdef void* impl = _impl_of(tensor)
    cdef void* data = NULL
    cdef int64_t* sizes = NULL
    cdef int64_t* strides = NULL
    cdef int64_t rank = -1
    cdef int64_t expected = 1
    cdef int32_t number = -1
    cdef int32_t i
    _get_data(&impl, &data)
    _get_dtype(&impl, &number)
    _get_rank(&impl, &rank)
    if <uintptr_t> data != address or number != dtype or rank != layout.ndim:
        return False
    _get_sizes(&impl, &sizes)
    _get_strides(&impl, &strides)
    for i in range(layout.ndim - 1, -1, -1):
        if sizes[i] != layout.shape[i] or (strides[i] != expected and sizes[i] != 1):
            return False
        expected *= sizes[i]
    return True


cdef object _probes():
    """Tensors of many kinds, on which PyTorch's private state is compared with its public answers."""
    with torch.inference_mode(False), torch.enable_grad():
        probes = [
            torch.zeros((1,) * 8),
            torch.zeros((), dtype=torch.int64),
            torch.zeros(2, 3).t(),
            torch.zeros(2, requires_grad=True),
            torch.nn.Parameter(torch.zeros(2)),
            torch.zeros(2, requires_grad=True) * 2,
            torch._neg_view(torch.zeros(2)),
            torch.zeros(2, dtype=torch.complex64).conj(),
            torch.zeros(2, dtype=torch.complex64).conj().imag,
            torch.empty(2, device="meta"),
        ]
    with torch.inference_mode():
        probes.append(torch.zeros(2))
    return probes


cdef Py_ssize_t _offset_of(object probes, object word_at, object wanted, Py_ssize_t begin, Py_ssize_t end):
    """The only offset at which every probe has the word that is wanted of it; 0 if there is none."""
    found = [
        offset
        for offset in range(begin, end, sizeof(void*))
        if all([word_at(probe, offset) == wanted(probe) for probe in probes])
    ]
    return found[0] if len(found) == 1 else 0


def _object_word(tensor, Py_ssize_t offset):
    return (<uintptr_t*> (<char*> <PyObject*> tensor + offset))[0]


def _impl_word(tensor, Py_ssize_t offset):
    return (<uint64_t*> (<char*> <uintptr_t> tensor._cdata + offset))[0]


def _keys(tensor):
    return torch._C._dispatch_keys(tensor).raw_repr()


cdef int _find_state() except -1:
    global _impl_offset, _keys_offset, _negative_key, _tracked_key, _requires_grad, _bump_version
    global _get_data, _get_sizes, _get_strides, _get_rank, _get_dtype
    cdef Py_ssize_t impl_offset, keys_offset
    cdef uintptr_t address
    library = ctypes.CDLL(torch._C.__file__)  # finds what its dependencies define, libtorch among them
    address = ctypes.cast(library._ZNK3c1010TensorImpl13requires_gradEv, ctypes.c_void_p).value
    memcpy(&_requires_grad, &address, sizeof(address))
    address = ctypes.cast(library._ZN5torch8autograd4impl12bump_versionERKN2at6TensorE, ctypes.c_void_p).value
    memcpy(&_bump_version, &address, sizeof(address))
    address = ctypes.cast(library.aoti_torch_get_data_ptr, ctypes.c_void_p).value
    memcpy(&_get_data, &address, sizeof(address))
    address = ctypes.cast(library.aoti_torch_get_sizes, ctypes.c_void_p).value
    memcpy(&_get_sizes, &address, sizeof(address))
    address = ctypes.cast(library.aoti_torch_get_strides, ctypes.c_void_p).value
    memcpy(&_get_strides, &address, sizeof(address))
    address = ctypes.cast(library.aoti_torch_get_dim, ctypes.c_void_p).value
    memcpy(&_get_rank, &address, sizeof(address))
    address = ctypes.cast(library.aoti_torch_get_dtype, ctypes.c_void_p).value
    memcpy(&_get_dtype, &address, sizeof(address))
    probes = _probes()
    impl_offset = _offset_of(
        probes, _object_word, lambda probe: probe._cdata, sizeof(PyObject), torch.Tensor.__basicsize__
    )
    keys_offset = _offset_of(probes, _impl_word, _keys, sizeof(void*), IMPL_SIZE)
    if impl_offset == 0 or keys_offset == 0:
        return 0
    _keys_offset = keys_offset
    _negative_key = torch._C.DispatchKeySet(torch._C.DispatchKey.Negative).raw_repr()
    _tracked_key = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView).raw_repr()
    _impl_offset = impl_offset
    if not all([_is_as_python_says(probe) for probe in probes]):
        _impl_offset = 0
    return 0


def _is_as_python_says(tensor):
    cdef PyObject* probe = <PyObject*> tensor
    facts = (tensor.is_neg(), tensor.is_inference(), tensor.requires_grad)
    if (bool(is_negative(probe)), bool(is_inference(probe)), bool(requires_grad(probe))) != facts:
        return False
    if tensor.is_inference():
        return True  # has no version
    before = tensor._version
    mark_overwritten(probe)
    return tensor._version == before + 1


def tensor_state_is_known():
    """Whether this PyTorch keeps the state of tensors where calls can read it."""
    return _impl_offset != 0


try:
    _find_state()
except (AttributeError, OSError, RuntimeError):  # a PyTorch that keeps its state elsewhere
    _impl_offset = 0
