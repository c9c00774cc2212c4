"""Finds where this PyTorch keeps the state of tensors, when the core is imported.

Offsets are found by looking for the answers of PyTorch's Python methods in the memory of many kinds of
tensors. What calls read there is then compared with the Python methods once more. If anything is not as
expected, `tensor_state.pxi` uses the Python methods.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

import ctypes

import torch

cdef enum:
    # What is looked for in a TensorImpl, a StorageImpl and a version counter lies within so many bytes in
    # every version so far.
    IMPL_SIZE = 192
    STORAGE_SIZE = 48
    COUNTER_SIZE = 24


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
            torch.zeros(7, dtype=torch.int16)[3:5],
            torch.frombuffer(bytearray(64), dtype=torch.float64)[1:],  # its memory is not the allocator's
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


def _storage_word(tensor, Py_ssize_t offset):
    return (<uintptr_t*> (<char*> <uintptr_t> tensor.untyped_storage()._cdata + offset))[0]


def _keys(tensor):
    return torch._C._dispatch_keys(tensor).raw_repr()


def _counter_at(tensor, Py_ssize_t offset):
    """Whether the word at an offset is an address that views share, and ``.data`` does not."""
    word = _impl_word(tensor, offset)
    return word != 0 and word == _impl_word(tensor.view_as(tensor), offset) != _impl_word(tensor.data, offset)


def _version_at(tensor, Py_ssize_t offset):
    return (<uint32_t*> <uintptr_t> (_impl_word(tensor, _counter_offset) + offset))[0]


cdef int _find_version() except -1:
    """Find where a tensor has its version counter, and where that has the version."""
    global _counter_offset, _version_offset
    with torch.inference_mode(False):
        probes = [torch.zeros(2), torch.nn.Parameter(torch.zeros(2), requires_grad=False)]
    for probe, writes in zip(probes, (7, 29), strict=True):
        for _ in range(writes):
            torch.autograd.graph.increment_version(probe)
    _counter_offset = _offset_of(probes, _counter_at, lambda probe: True, sizeof(void*), IMPL_SIZE)
    if _counter_offset != 0:
        _version_offset = _offset_of(
            probes, _version_at, lambda probe: probe._version, sizeof(void*), COUNTER_SIZE
        )
    return 0


def _layout_at(tensor, Py_ssize_t offset):
    """Read a tensor's layout at an offset, in the form of `_layout_in_python`."""
    cdef uint64_t* words = <uint64_t*> (<char*> <uintptr_t> tensor._cdata + offset)
    cdef int32_t dtype = <uint16_t> words[3 + 2 * INLINE_DIMS]
    sizes = [words[1 + index] for index in range(tensor.ndim)]
    strides = [words[1 + INLINE_DIMS + index] for index in range(tensor.ndim)]
    return words[0], sizes, strides, words[1 + 2 * INLINE_DIMS], words[2 + 2 * INLINE_DIMS], dtype


def _layout_in_python(tensor):
    cdef void* impl = <void*> <uintptr_t> tensor._cdata
    cdef int32_t dtype = -1
    _get_dtype(&impl, &dtype)
    sizes, strides = list(tensor.shape), list(tensor.stride())
    return tensor.ndim, sizes, strides, tensor.storage_offset(), tensor.numel(), dtype


cdef int _find_state() except -1:
    global _impl_offset, _keys_offset, _negative_key, _tracked_key, _requires_grad, _bump_version
    global _storage_offset, _layout_offset, _memory_offset
    global _get_dtype
    cdef Py_ssize_t impl_offset
    cdef uintptr_t address
    library = ctypes.CDLL(torch._C.__file__)  # finds what its dependencies define, libtorch among them
    address = ctypes.cast(library._ZNK3c1010TensorImpl13requires_gradEv, ctypes.c_void_p).value
    memcpy(&_requires_grad, &address, sizeof(address))
    address = ctypes.cast(library._ZN5torch8autograd4impl12bump_versionERKN2at6TensorE, ctypes.c_void_p).value
    memcpy(&_bump_version, &address, sizeof(address))
    address = ctypes.cast(library.aoti_torch_get_dtype, ctypes.c_void_p).value
    memcpy(&_get_dtype, &address, sizeof(address))
    probes = _probes()
    impl_offset = _offset_of(
        probes, _object_word, lambda probe: probe._cdata, sizeof(PyObject), torch.Tensor.__basicsize__
    )
    _keys_offset = _offset_of(probes, _impl_word, _keys, sizeof(void*), IMPL_SIZE)
    _storage_offset = _offset_of(
        probes, _impl_word, lambda probe: probe.untyped_storage()._cdata, sizeof(void*), IMPL_SIZE
    )
    _memory_offset = _offset_of(
        probes, _storage_word, lambda probe: probe.untyped_storage().data_ptr(), sizeof(void*), STORAGE_SIZE
    )
    _layout_offset = _offset_of(
        [probe for probe in probes if probe.ndim <= INLINE_DIMS],
        _layout_at,
        _layout_in_python,
        sizeof(void*),
        IMPL_SIZE - LAYOUT_WORDS * sizeof(uint64_t),
    )
    _find_version()
    found = (
        impl_offset,
        _keys_offset,
        _storage_offset,
        _memory_offset,
        _layout_offset,
        _counter_offset,
        _version_offset,
    )
    if 0 in found:
        return 0
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
