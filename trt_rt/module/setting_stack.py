"""Settings that nested context managers change for a time, and leave in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["SettingStack"]


@dataclass(frozen=True)
class SettingStack:
    """Settings, and the changes that context managers have laid over them. It never changes itself.

    Attributes
    ----------
    base : mapping of str to object
        The settings without any context manager.
    over : tuple of (object, mapping of str to object)
        The context managers that are entered, the last one at the end, and what each has changed.
    """

    base: Mapping[str, Any]
    over: tuple[tuple[object, Mapping[str, Any]], ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The settings in force: of each the last change counts."""
        values = dict(self.base)
        for _, changes in self.over:
            values.update(changes)
        return values

    def entered(self, owner: object, changes: Mapping[str, Any]) -> SettingStack:
        """Return the stack with the changes of a context manager on top."""
        return replace(self, over=(*self.over, (owner, changes)))

    def left(self, owner: object) -> SettingStack:
        """Return the stack without the changes of a context manager; itself if that is not entered."""
        if all(other is not owner for other, _ in self.over):
            return self
        return replace(self, over=tuple(entry for entry in self.over if entry[0] is not owner))

    def changed(self, name: str, value: Any) -> SettingStack:
        """Return the stack with a setting changed, until the innermost context manager over it is left."""
        for index in range(len(self.over) - 1, -1, -1):
            owner, changes = self.over[index]
            if name in changes:
                entry = (owner, {**changes, name: value})
                return replace(self, over=(*self.over[:index], entry, *self.over[index + 1 :]))
        return replace(self, base={**self.base, name: value})
