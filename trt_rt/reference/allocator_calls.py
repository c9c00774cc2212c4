"""Calls to the output allocators that a user has set."""

from __future__ import annotations

import sys
from typing import Any

from trt_rt.errors import ExecutionError
from trt_rt.reference.dims import Dims

__all__ = ["notify_shape", "reallocate"]


def reallocate(allocator: Any, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
    """Ask an allocator for the memory of an output, and return its address.

    Parameters
    ----------
    allocator : IOutputAllocator
        The allocator.
    name : str
        The output.
    memory : int
        The output's present address; 0 if it has none.
    size, alignment : int
        What is needed, in bytes.
    stream : int
        The stream that will write the output.

    Raises
    ------
    ExecutionError
        The allocator provides no memory, or memory that is not aligned.
    """
    try:
        function = getattr(allocator, "reallocate_output_async", None)
        if function is not None:
            address = function(name, memory, size, alignment, stream)
        else:
            address = allocator.reallocate_output(name, memory, size, alignment)
    except Exception as error:
        # TensorRT calls allocators from C++, which no exception may cross. It prints, and goes on without
        # memory.
        print(f"[ERROR] Exception caught in reallocate_output_async(): {error}", file=sys.stderr)  # noqa: T201
        address = None
    if not address:
        raise ExecutionError(f"the output allocator of {name!r} gave no memory for {size} bytes")
    if address % alignment:
        raise ExecutionError(
            f"the output allocator of {name!r} gave {address:#x}, which is not aligned to {alignment} bytes"
        )
    return int(address)


def notify_shape(allocator: Any, name: str, shape: tuple[int, ...]) -> None:
    """Tell an allocator the shape of an output; an exception is printed, as TensorRT does."""
    try:
        allocator.notify_shape(name, Dims(shape))
    except Exception as error:
        print(f"[ERROR] Exception caught in notify_shape(): {error}", file=sys.stderr)  # noqa: T201
