"""Weights in archives: raw bytes, described by PyTorch's payload configuration."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import (
    _SERIALIZE_TO_TORCH_DTYPE,
    EnumEncoder,
    _dataclass_to_dict,
    serialize_tensor_meta,
)

from trt_rt.archive.container import Container
from trt_rt.archive.container_writer import ContainerWriter
from trt_rt.archive.schema_reader import read_schema
from trt_rt.archive.strict_json import parse
from trt_rt.errors import ArchiveError

__all__ = [
    "CONSTANTS",
    "WEIGHTS",
    "Payload",
    "PayloadKind",
    "copy_record",
    "pieces",
    "read_config",
    "write_payload",
]

_CHUNK = 8 << 20
"""Bytes that are copied at a time."""

_LARGEST_CONFIG = 256 << 20
_FILE_NAME = re.compile("[A-Za-z0-9_]{1,200}")


class PayloadKind:
    """A folder of tensors in an archive.

    Parameters
    ----------
    folder : str
        Of the records.
    prefix : str
        Of their names, before a number.
    config : str
        The record that describes them.
    """

    def __init__(self, folder: str, prefix: str, config: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.config = config


WEIGHTS = PayloadKind("data/weights/", "weight_", "data/weights/model_weights_config.json")
CONSTANTS = PayloadKind("data/constants/", "tensor_", "data/constants/model_constants_config.json")


def write_payload(
    writer: ContainerWriter,
    kind: PayloadKind,
    tensors: Mapping[str, torch.Tensor],
    written: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Write tensors, a few megabytes at a time.

    Parameters
    ----------
    writer : ContainerWriter
        Of the archive.
    kind : PayloadKind
        The folder.
    tensors : mapping
        By name in the program. Those that share memory share it again when they are loaded.
    written : mapping
        The tensors that the archive already has, with the names of their files, which are numbered from 0.

    Returns
    -------
    dict of str to str
        Of each tensor's name to its record.

    Raises
    ------
    ArchiveError
        A tensor is of a class of its own, sparse, quantized, or without values.
    """
    config = {path: _described(name, tensors[path]) for path, name in written.items()}
    rest = {path: tensor for path, tensor in tensors.items() if path not in written}
    for number, group in enumerate(_groups(rest), len(written)):
        name = f"{kind.prefix}{number}"
        low = min(tensor.storage_offset() for tensor in group.values())
        high = max(_end(tensor) for tensor in group.values())
        first = next(iter(group.values()))
        memory = torch.as_strided(first.detach(), (high - low,), (1,), low)
        writer.write(f"{kind.folder}{name}", memory.numel() * memory.itemsize, _chunks(memory))
        for path, tensor in group.items():
            config[path] = _described(name, tensor, int(tensor.storage_offset() - low))
    content = json.dumps(_dataclass_to_dict(schema.PayloadConfig(config=config)), cls=EnumEncoder)
    writer.write_bytes(kind.config, content.encode())
    return {path: f"{kind.folder}{meta.path_name}" for path, meta in config.items()}


def _described(name: str, tensor: torch.Tensor, offset: int = 0) -> schema.PayloadMeta:
    meta = serialize_tensor_meta(tensor)
    meta.storage_offset = schema.SymInt.create(as_int=offset)
    if tensor.is_meta:  # stands for a tensor that was written
        meta.device = schema.Device(type="cpu")
    return schema.PayloadMeta(
        path_name=name,
        is_param=isinstance(tensor, torch.nn.Parameter),
        use_pickle=False,
        tensor_meta=meta,
    )


def _groups(tensors: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Tensors that share memory, together."""
    groups: dict[Any, dict[str, torch.Tensor]] = {}
    for path, tensor in tensors.items():
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise ArchiveError(
                f"the weight {path!r} is a {type(tensor).__name__}, and only plain tensors can be saved."
            )
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ArchiveError(
                f"the weight {path!r} is sparse, quantized, or without values, and cannot be saved."
            )
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        key: Any = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.dtype)
        groups.setdefault(key if tensor.numel() else path, {})[path] = tensor
    return list(groups.values())


def _end(tensor: torch.Tensor) -> int:
    """The element of its storage after the last that a tensor has."""
    start = int(tensor.storage_offset())
    if not tensor.numel():
        return start
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return start + 1 + sum((size - 1) * stride for size, stride in steps)


def pieces(content: memoryview) -> Iterator[memoryview]:
    """Yield a few megabytes of bytes at a time."""
    for start in range(0, len(content), _CHUNK):
        yield content[start : start + _CHUNK]


def _chunks(memory: torch.Tensor) -> Iterator[memoryview]:
    """The bytes of a contiguous tensor with one dimension."""
    step = max(_CHUNK // memory.itemsize, 1)
    for start in range(0, memory.numel(), step):
        part = memory[start : start + step].cpu()
        size = part.numel() * part.itemsize
        yield memoryview((ctypes.c_char * size).from_address(part.data_ptr())).cast("B")


class Payload:
    """The tensors of a folder of an archive, described and checked but not read.

    Parameters
    ----------
    container : Container
        The archive.
    kind : PayloadKind
        The folder.
    config : dict
        Of names in the program to descriptions.

    Raises
    ------
    ArchiveError
        A tensor is pickled, or reaches beyond its record.
    """

    def __init__(
        self, container: Container, kind: PayloadKind, config: dict[str, schema.PayloadMeta]
    ) -> None:
        self._container = container
        self._folder = kind.folder
        self.config = config
        for path, meta in config.items():
            self._check(path, meta)

    def record(self, path: str) -> str:
        """Return the name of the record that has a tensor."""
        return f"{self._folder}{self.config[path].path_name}"

    def read(self, device: torch.device, without: Collection[str]) -> dict[str, torch.Tensor]:
        """Return the tensors, in memory of their own.

        Parameters
        ----------
        device : torch.device
            Of tensors that were saved on a GPU.
        without : collection of str
            Names that get a tensor without elements: plans, which engines take from the file.
        """
        memories: dict[Any, torch.Tensor] = {}
        tensors = {}
        for path, meta in self.config.items():
            assert meta.tensor_meta is not None
            dtype = _SERIALIZE_TO_TORCH_DTYPE[meta.tensor_meta.dtype]
            if path in without:
                tensors[path] = torch.empty(0, dtype=dtype)
                continue
            where = device if meta.tensor_meta.device.type == "cuda" else torch.device("cpu")
            key = (meta.path_name, dtype, where)
            if key not in memories:
                memories[key] = copy_record(self._container.view(self.record(path)), dtype, where)
            tensor = torch.as_strided(memories[key], *_layout(meta.tensor_meta))
            tensors[path] = torch.nn.Parameter(tensor, requires_grad=False) if meta.is_param else tensor
        return tensors

    def _check(self, path: str, meta: schema.PayloadMeta) -> None:
        where = f"{self._container.path}, tensor {path[:80]!r}"
        if meta.use_pickle or meta.tensor_meta is None:
            raise ArchiveError(f"{where} is stored as a pickle, which runs code when it is read: it is not.")
        if not _FILE_NAME.fullmatch(meta.path_name):
            raise ArchiveError(f"{where}: its record {meta.path_name[:80]!r} is not the name of a file.")
        tensor = meta.tensor_meta
        numbers = (*tensor.sizes, *tensor.strides, tensor.storage_offset)
        if tensor.layout != schema.Layout.Strided or tensor.dtype not in _SERIALIZE_TO_TORCH_DTYPE:
            raise ArchiveError(f"{where}: its layout or dtype is not one that can be loaded.")
        if len(tensor.sizes) != len(tensor.strides) or any(
            number.type != "as_int" or number.value < 0 for number in numbers
        ):
            raise ArchiveError(f"{where}: its shape is not one of a tensor.")
        size = len(self._container.view(self.record(path)))
        itemsize = _SERIALIZE_TO_TORCH_DTYPE[tensor.dtype].itemsize
        sizes, strides, offset = _layout(tensor)
        steps = zip(sizes, strides, strict=True)
        end = offset + 1 + sum((length - 1) * stride for length, stride in steps) if all(sizes) else 0
        if end * itemsize > size or size % itemsize:
            raise ArchiveError(f"{where} reaches beyond its record {self.record(path)!r} of {size:,} bytes.")


def _layout(tensor: schema.TensorMeta) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    sizes = tuple(size.as_int for size in tensor.sizes)
    return sizes, tuple(stride.as_int for stride in tensor.strides), tensor.storage_offset.as_int


def copy_record(content: memoryview, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a tensor with the bytes of a record; a few megabytes are in memory twice."""
    memory = torch.empty(len(content), dtype=torch.uint8, device=device)
    start = 0
    for piece in pieces(content):
        part = bytearray(piece)
        memory[start : start + len(part)].copy_(torch.frombuffer(part, dtype=torch.uint8))
        start += len(part)
    return memory.view(dtype)


def read_config(container: Container, kind: PayloadKind) -> dict[str, schema.PayloadMeta]:
    """Return the descriptions of a folder's tensors, for a `Payload` to check.

    Raises
    ------
    ArchiveError
        They are not as PyTorch writes them.
    """
    where = f"{container.path}, record {kind.config!r}"
    value = parse(container.text(kind.config, _LARGEST_CONFIG), where)
    return read_schema(schema.PayloadConfig, value, where).config
