"""Checks the counts that callers pass, before anything is allocated or changed."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["LARGEST_COUNT", "checked_count"]

# Far more than any program needs, and small enough that no size computed from a count overflows.
LARGEST_COUNT = 65_536


def checked_count(name: str, value: Any, counted: str) -> int:
    """Return a count that a caller passed as a Python integer.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        What the caller passed.
    counted : str
        What is counted, in the plural, for the message.

    Returns
    -------
    int
        From 1 to `LARGEST_COUNT`.

    Raises
    ------
    TypeError
        If `value` is no integer.
    ValueError
        If it is less than 1 or more than `LARGEST_COUNT`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}={value!r}: the number of {counted} is an int, not {type(value).__name__}."
        ) from None
    if not 1 <= count <= LARGEST_COUNT:
        raise ValueError(f"{name}={count}: the number of {counted} must be from 1 to {LARGEST_COUNT}.")
    return count
