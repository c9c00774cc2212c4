"""What the bytes of a TensorRT-RTX plan say of its I/O tensors.

Without a GPU nothing can deserialize a plan, so no engine can be asked for its I/O table. But the table is in
the plan, as tagged little-endian values, and was found there in plans of TensorRT-RTX 1.7.1 (the format is
not documented). An I/O tensor has, one after the other: its name, with its length before it; its type, as the
number of a ``DataType``; eight strides; its dimensions, those that are dynamic as negative numbers; its
location; its direction, 0 for an input. A plan of another layout has no tensors here, which no test takes for
success.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Literal, NamedTuple

__all__ = ["PlanTensor", "io_tensors", "tensor_types"]


class PlanTensor(NamedTuple):
    """An I/O tensor in a plan.

    Attributes
    ----------
    name : str
        Of the tensor.
    mode : {"input", "output"}
        Direction.
    dtype : str
        Name of the member of TensorRT's ``DataType``.
    shape : tuple of int
        -1 for a dynamic dimension.
    """

    name: str
    mode: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]


_INT = rb"\x07\x80\x01\x00(.{4})"
_BEFORE_DIMENSIONS = (
    rb"\x1c\x80\x01\x00\x03\x80\x01\x00.\x0d\x80\x01\x00"
    + _INT  # type
    + rb"\x03\x80\x01\x00.\x01\x80\x09\x80\x01\x00\x08\0{7}.{64}"  # strides
    + rb"\x07\x80\x01\x00.{4}\xe3\x7f\x59\x80\x01\x00"
    + _INT  # number of dimensions
    + rb"\x01\x80\x09\x80\x01\x00.{8}"
)
_AFTER_DIMENSIONS = rb"\xa6\x7f\x15\x80\x01\x00\x07\x80\x01\x00.{4}\x28\x80\x01\x00" + _INT  # direction
_LAYOUT = re.compile(_BEFORE_DIMENSIONS, re.DOTALL)
_DIRECTION = re.compile(_AFTER_DIMENSIONS, re.DOTALL)

# The compiler's description of a tensor, which is text: tensor={ dims={ 1 16 } name="relu.1" type=half }
_TYPE = re.compile(rb"tensor=\{[^\n]* type=(\w+) \}")


def io_tensors(plan: bytes, api: Any) -> list[PlanTensor]:
    """Return every I/O tensor in a plan; `api` is the Python module of TensorRT-RTX."""
    return [_tensor(plan, layout, api) for layout in _LAYOUT.finditer(plan)]


def tensor_types(plan: bytes) -> set[str]:
    """Return the compiler's names of the types of all tensors, those inside the network too."""
    return {match[1].decode() for match in _TYPE.finditer(plan)}


def _tensor(plan: bytes, layout: re.Match[bytes], api: Any) -> PlanTensor:
    dtype, rank = (struct.unpack("<i", group)[0] for group in layout.groups())
    dims = struct.unpack_from(f"<{rank}q", plan, layout.end())
    direction = _DIRECTION.match(plan, layout.end() + 8 * rank)
    assert direction is not None, "the plan's layout is not that of TensorRT-RTX 1.7.1"
    return PlanTensor(
        _name_before(plan, layout.start()),
        "output" if struct.unpack("<i", direction[1])[0] else "input",
        api.DataType(dtype).name,
        tuple(max(size, -1) for size in dims),
    )


def _name_before(plan: bytes, end: int) -> str:
    """The string that ends at `end`, found by the length before it."""
    for length in range(1, 256):
        start = end - length
        if plan[start - 8 : start] == struct.pack("<q", length):
            return plan[start:end].decode()
    raise AssertionError("the plan's layout is not that of TensorRT-RTX 1.7.1")
