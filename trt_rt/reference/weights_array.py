"""``Weights``: an array of weights, by its address."""

from __future__ import annotations

from trt_rt.reference.dtypes import TENSORRT_DTYPES
from trt_rt.reference.enums import DataType

__all__ = ["Weights"]

_ITEM_SIZES = {member: dtype.itemsize for dtype, member in TENSORRT_DTYPES.items()}


class Weights:
    """An array of weights in memory of its user's.

    Parameters
    ----------
    type : DataType
        Of an element.
    ptr : int
        Address of the first; 0 for none.
    count : int
        How many there are; -1 from :meth:`Refitter.get_weights_prototype` for a name that it does not know.
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
