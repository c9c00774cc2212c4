"""What contexts over a setting have found, so that in the end it is back in whatever order they are left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["RestorePoints"]

Value = TypeVar("Value")


class RestorePoints(Generic[Value]):
    """The values of one setting that its contexts have found, the last one that was entered at the end.

    Not safe to be used by several threads at once.
    """

    def __init__(self) -> None:
        self._found: list[tuple[object, Value]] = []

    def enter(self, owner: object, found: Value) -> None:
        """Note what a context has found."""
        self._found.append((owner, found))

    def leave(self, owner: object, restore: Callable[[Value], object]) -> None:
        """Restore what a context has found; if others were entered since, the next of them does it later.

        Parameters
        ----------
        owner : object
            As given to `enter`; one that is not there is ignored.
        restore : callable
            ``restore(found)``; may raise.
        """
        index = next((i for i, (entered, _) in enumerate(self._found) if entered is owner), None)
        if index is None:
            return
        _, found = self._found.pop(index)
        if index == len(self._found):
            restore(found)
        else:
            self._found[index] = (self._found[index][0], found)
