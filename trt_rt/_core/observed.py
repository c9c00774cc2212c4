"""What stands in the place of an object while calls are observed, and how to find the object again."""

from __future__ import annotations

from typing import Any

__all__ = ["unobserved"]


def unobserved(value: Any) -> Any:
    """Return the object that an observer has replaced by `value`, or `value` itself if there is none.

    A replacement has the object as its attribute ``unobserved``.
    """
    return getattr(value, "unobserved", value)
