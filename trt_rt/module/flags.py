"""Checks the truth values that callers pass, before anything is changed."""

from __future__ import annotations

from typing import Any

__all__ = ["checked_flag"]


def checked_flag(name: str, value: Any) -> bool:
    """Return a truth value that a caller passed.

    Another type is more often a mistake than meant: the text "False", for example, is true.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        What the caller passed.

    Raises
    ------
    TypeError
        If `value` is not a bool.
    """
    if type(value) is not bool:
        raise TypeError(f"{name}={value!r}: True or False is allowed, not {type(value).__name__}.")
    return value
