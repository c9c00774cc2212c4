"""The objects of a TorchScript file: modules with attributes, and descriptions of tensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.archive.container import Container
from trt_rt.archive.engine_pickle import ENGINE, RESTORE
from trt_rt.archive.pickle_reader import PickledObject, PickleReader, restored
from trt_rt.errors import ArchiveError

__all__ = ["StoredTensor", "is_torchscript", "read_constants", "read_examples", "read_root"]

DATA, CONSTANTS, EXAMPLES = "data.pkl", "constants.pkl", "traced_inputs.pkl"

_LARGEST = 4 << 30
_MOST_OPCODES = 10_000_000
_CLASS = re.compile(r"__torch__(\.[A-Za-z_][A-Za-z0-9_]*)* [A-Za-z_][A-Za-z0-9_]*")
_RECORD = re.compile("[0-9]{1,9}")
_DEVICE = re.compile("cpu|cuda(:[0-9]{1,2})?|meta")
_STORAGES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "BFloat16": torch.bfloat16,
        "Bool": torch.bool,
        "Byte": torch.uint8,
        "Char": torch.int8,
        "ComplexDouble": torch.complex128,
        "ComplexFloat": torch.complex64,
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "Int": torch.int32,
        "Long": torch.int64,
        "Short": torch.int16,
    }.items()
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a TorchScript file.

    Attributes
    ----------
    record : str
        That has its bytes.
    dtype : torch.dtype
        Of its elements.
    device : str
        Where it was, such as "cuda:0".
    offset : int
        Of its first element in the record, in elements.
    sizes, strides : tuple of int
        In elements.
    is_parameter : bool
        Whether it wanted gradients.
    """

    record: str
    dtype: torch.dtype
    device: str
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    is_parameter: bool


def is_torchscript(container: Container) -> bool:
    """Return whether a file has the records that every TorchScript file has."""
    return DATA in container and CONSTANTS in container


def read_root(container: Container) -> PickledObject:
    """Return the module of a file.

    Raises
    ------
    ArchiveError
        The record has another opcode or name than TorchScript's serializer writes.
    """
    root = _Records(container, DATA, "data").read()
    if type(root) is not PickledObject or root.kind == ENGINE:
        raise ArchiveError(f"{container.path}, record {DATA!r}: it is not a module.")
    return root


def read_constants(container: Container) -> tuple[Any, ...]:
    """Return the constants that the code names ``CONSTANTS.c0``, ``CONSTANTS.c1`` and so on.

    Raises
    ------
    ArchiveError
        As for `read_root`.
    """
    found = _Records(container, CONSTANTS, "constants").read()
    if type(found) is not tuple:
        raise ArchiveError(f"{container.path}, record {CONSTANTS!r}: it is not a tuple.")
    return found


def read_examples(container: Container) -> list[Any]:
    """Return the inputs that the module was traced with: tensors of which only the description is stored.

    Raises
    ------
    ArchiveError
        As for `read_root`.
    """
    if EXAMPLES not in container:
        return []
    found = _Records(container, EXAMPLES, "traced_inputs").read()
    inputs = found.get("forward") if type(found) is dict else None
    return inputs if type(inputs) is list else []


class _Records:
    """One pickle of a file, and the records with the bytes of its tensors."""

    def __init__(self, container: Container, name: str, folder: str) -> None:
        self._container = container
        self._name = name
        self._folder = folder

    def read(self) -> Any:
        where = f"{self._container.path}, record {self._name!r}"
        functions: dict[str, Callable[..., Any]] = {
            RESTORE: restored,
            "collections OrderedDict": dict,
            "torch device": _device,
            "torch._utils _rebuild_tensor_v2": _tensor,
            **{f"torch.jit._pickle build_{kind}list": _list for kind in ("bool", "double", "int", "tensor")},
            **{name: _storage_class(dtype) for name, dtype in _STORAGES.items()},
        }
        reader = PickleReader(where, _is_class, functions, _MOST_OPCODES, self._storage)
        return reader.read(self._container.text(self._name, _LARGEST))

    def _storage(self, identifier: Any) -> tuple[str, torch.dtype, str]:
        if type(identifier) is not tuple or len(identifier) != 5 or identifier[0] != "storage":
            raise ValueError("a persistent value that is not a storage")
        _, kind, key, device, _ = identifier
        if not isinstance(kind, _StorageClass) or type(key) is not str or not _RECORD.fullmatch(key):
            raise ValueError("a storage without dtype or record")
        return f"{self._folder}/{key}", kind.dtype, _device(device)


def _is_class(name: str) -> bool:
    return name == ENGINE or _CLASS.fullmatch(name) is not None


class _StorageClass:
    """Stands for a class of PyTorch's storages, which only names a dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, *arguments: Any) -> Any:
        raise ValueError("a storage without a record")


def _storage_class(dtype: torch.dtype) -> _StorageClass:
    return _StorageClass(dtype)


def _device(text: Any) -> str:
    if type(text) is not str or not _DEVICE.fullmatch(text):
        raise ValueError(f"the device {str(text)[:20]!r}")
    return text


def _list(items: Any) -> list[Any]:
    if type(items) is not list:
        raise ValueError("a list of something else than items")
    return items


def _tensor(storage: Any, offset: Any, sizes: Any, strides: Any, wants_gradient: Any, hooks: Any) -> Any:
    if type(storage) is not tuple or len(storage) != 3:
        raise ValueError("a tensor without a storage")
    record, dtype, device = storage
    if type(sizes) is not tuple or type(strides) is not tuple or len(sizes) != len(strides):
        raise ValueError("a tensor whose shape is not one")
    if any(type(number) is not int or number < 0 for number in (offset, *sizes, *strides)):
        raise ValueError("a tensor whose shape is not one")
    if type(wants_gradient) is not bool or hooks != {}:
        raise ValueError("a tensor with hooks")
    return StoredTensor(record, dtype, device, offset, sizes, strides, wants_gradient)
