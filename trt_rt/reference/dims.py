"""TensorRT's ``Dims``: the dimensions of a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

__all__ = ["MAX_DIMS", "NO_DIMS", "Dims"]

MAX_DIMS = 8
"""The largest number of dimensions of a tensor in TensorRT."""


class Dims(tuple[int, ...]):
    """Dimensions; equal to the tuple and to the list of the same integers. -1 is an unknown dimension."""

    __slots__ = ()
    MAX_DIMS = MAX_DIMS

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (list, tuple)):
            return tuple(self) == tuple(other)
        return NotImplemented

    __hash__ = tuple.__hash__

    def __str__(self) -> str:
        return tuple.__repr__(self)


class _NoDims(Dims):
    """``Dims{-1, {}}``, which TensorRT returns for a name that is no I/O tensor. It has no length."""

    __slots__ = ()

    def __len__(self) -> NoReturn:
        raise ValueError("__len__() should return >= 0")

    def __iter__(self) -> Iterator[int]:
        raise ValueError("these dimensions belong to no tensor")


NO_DIMS = _NoDims()
"""The shape that is returned for a name that is no I/O tensor."""
