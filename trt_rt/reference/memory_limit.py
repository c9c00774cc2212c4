"""Bounds on what a network may allocate and return, from the memory of this machine."""

from __future__ import annotations

import os
import resource

import torch

from trt_rt.errors import ExecutionError
from trt_rt.reference.results import MOST_DIMS

__all__ = ["MOST_PIECES", "check_pieces", "check_size", "check_tensors"]

MOST_PIECES = 2**16
"""The most tensors that one layer may make."""


def check_size(elements: int, itemsize: int, largest: int | None = None) -> None:
    """Check that a tensor fits into the memory of this machine.

    Without this check a few bytes of a plan could ask for so much memory that the operating system ends the
    process. Views count with all of their elements, because a layer that reads a view takes time for each.

    Parameters
    ----------
    elements, itemsize : int
        How many there are, and the bytes of each.
    largest : int, optional
        Bytes that are allowed; the memory of this machine by default.

    Raises
    ------
    ExecutionError
        It does not fit.
    """
    limit = _memory() if largest is None else largest
    if elements * itemsize > limit:
        raise ExecutionError(
            f"a tensor of {elements} elements needs {elements * itemsize} bytes, and at most {limit} are "
            "allowed here"
        )


def check_tensors(result: object, largest: int | None = None) -> None:
    """Check every tensor in the result of a layer; `largest` is as for :func:`check_size`.

    Raises
    ------
    ExecutionError
        One has too many elements or dimensions.
    """
    for value in result if isinstance(result, (list, tuple)) else (result,):
        if isinstance(value, torch.Tensor):
            if value.dim() > MOST_DIMS:
                raise ExecutionError(f"a tensor has {value.dim()} dimensions, more than {MOST_DIMS}")
            check_size(value.numel(), value.dtype.itemsize, largest)


def check_pieces(count: int) -> None:
    """Check the number of tensors into which a layer splits one.

    Raises
    ------
    ExecutionError
        There are too many.
    """
    if count > MOST_PIECES:
        raise ExecutionError(f"a layer makes {count} tensors, more than {MOST_PIECES}")


def _memory() -> int:
    """Bytes of memory that this process can have: the machine's, or less where the process has a limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)
