"""Memory that holds a serialized engine."""

from __future__ import annotations

from trt_rt.reference.enums import DataType

__all__ = ["IHostMemory"]


class IHostMemory(bytes):
    """A serialized engine: pass it wherever bytes or a buffer are wanted.

    It derives from ``bytes`` because a Python class can offer the buffer protocol in no other way before
    Python 3.12.
    """

    @property
    def dtype(self) -> DataType:
        """The type of an element: INT8, as TensorRT says of plans."""
        return DataType.INT8

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self)
