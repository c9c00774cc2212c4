"""``Weights``: the address and the size of an array of weights."""

from __future__ import annotations

from trt_rt.reference.dtypes import TENSORRT_DTYPES
from trt_rt.reference.enums import DataType

__all__ = ["Weights"]

_ITEM_SIZES = {member: dtype.itemsize for dtype, member in TENSORRT_DTYPES.items()}


class Weights:
    """An array of weights in memory that the user owns.

    Parameters
    ----------
    type : DataType
        Type of an element.
    ptr : int
        Address of the first element; 0 for none.
    count : int
        Number of elements; -1 from :meth:`Refitter.get_weights_prototype` for an unknown name.
    """

    def __init__(self, type: DataType = DataType.FLOAT, ptr: int = 0, count: int = 0) -> None:
        self._dtype = type
        self._address = ptr
        self._count = count

    def __len__(self) -> int:
        return max(self._count, 0)

    @property
    def dtype(self) -> DataType:
        """Type of an element."""
        return self._dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self._count * _ITEM_SIZES[self._dtype]
