"""Writes the constants of a package: a safetensors file, which the C++ runtime maps into memory."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from trt_rt.errors import TRTError

__all__ = ["write_constants"]

_ALIGNMENT = 64
"""Bytes. PyTorch aligns tensors on the CPU so."""

_DTYPES = {
    torch.bfloat16: "BF16",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.complex128: "C128",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint8: "U8",
}


def write_constants(path: Path, constants: Mapping[str, torch.Tensor], arguments: Iterable[str]) -> None:
    """Write tensors to a new file.

    Parameters
    ----------
    path : Path
        The file.
    constants : mapping of str to torch.Tensor
        On any device. A tensor of a mapped file is written from where it is, without a copy in memory.
    arguments : iterable of str
        The names of those that the compiled program takes as its first arguments, in their order. They stay
        on the CPU in a program for a CUDA device.

    Raises
    ------
    TRTError
        A constant has a dtype that the file has no name for.
    OSError
        The file cannot be written.
    """
    # By size of elements, so that each constant begins at a multiple of its own. The format has no gaps.
    order = sorted(constants, key=lambda name: -constants[name].element_size())
    header: dict[str, Any] = {"__metadata__": {"arguments": "\n".join(arguments)}}
    end = 0
    for name in order:
        tensor = constants[name]
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
            raise TRTError(
                f"the constant {name!r} of the program is a {tensor.layout} tensor of {tensor.dtype}, which "
                f"a package for C++ cannot hold. It holds dense tensors of {', '.join(map(str, _DTYPES))}."
            )
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            # Kept here, as the view of its memory does not.
            flat = constants[name].detach().cpu().contiguous().resolve_conj().resolve_neg()
            size = flat.numel() * flat.element_size()
            if size:
                file.write(memoryview((ctypes.c_char * size).from_address(flat.data_ptr())))
