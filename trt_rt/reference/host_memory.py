"""Memory that holds a serialized engine."""

from __future__ import annotations

from trt_rt.reference.enums import DataType

__all__ = ["IHostMemory"]


class IHostMemory(bytes):
    """A serialized engine, accepted wherever bytes or a buffer are.

    It derives from ``bytes`` because before Python 3.12 a class written in Python has no other way to offer
    the buffer protocol.
    """

    @property
    def dtype(self) -> DataType:
        """The type of an element: INT8, as for TensorRT's plans."""
        return DataType.INT8

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self)
