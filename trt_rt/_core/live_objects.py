"""Objects that are known as long as somebody else keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar
from weakref import ReferenceType, ref

__all__ = ["LiveObjects"]

Item = TypeVar("Item")


class LiveObjects(Generic[Item]):
    """Like ``weakref.WeakSet``, but threads, finalizers and interrupts may come at any time.

    Up to Python 3.13 a WeakSet that another thread changes cannot be read, and an interrupt while it is read
    keeps it from forgetting objects. Here each change is one operation of a set, and the set is copied by
    one.
    """

    def __init__(self) -> None:
        self._references: set[ReferenceType[Item]] = set()

    def add(self, item: Item) -> None:
        """Know an object, until nobody else refers to it."""
        self._references.add(ref(item, self._references.discard))

    def discard(self, item: Item) -> None:
        """Forget an object."""
        self._references.discard(ref(item))

    def __iter__(self) -> Iterator[Item]:
        found = (reference() for reference in list(self._references))
        return iter([item for item in found if item is not None])
