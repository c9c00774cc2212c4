"""JSON from files that nobody has checked: bounded, without duplicate keys, and read by type."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

from trt_rt.errors import ArchiveError

__all__ = ["Fields", "parse"]

_MOST_VALUES = 5_000_000

Value = TypeVar("Value")


def parse(content: bytes, where: str) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    content : bytes
        The text.
    where : str
        File and record, for messages.

    Raises
    ------
    ArchiveError
        The text is not JSON, names a key twice, or has too many values.
    """
    # A parsed value takes up to 80 times the bytes of its text. Each but the first follows one of these.
    values = sum(content.count(character) for character in (b",", b"[", b"{"))
    if values > _MOST_VALUES:
        raise ArchiveError(f"{where}: it has {values:,} values, and at most {_MOST_VALUES:,} are allowed.")
    try:
        return json.loads(
            content.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{where} is not JSON as trt_rt reads it: {error}.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


class Fields:
    """The fields of a JSON object, each read with the type that it must have.

    Parameters
    ----------
    value : object
        As `parse` gives it; must be a JSON object.
    where : str
        For messages.
    """

    def __init__(self, value: Any, where: str) -> None:
        if type(value) is not dict:
            raise ArchiveError(f"{where}: a JSON object is needed, not {_kind(value)}.")
        self.values: dict[str, Any] = value
        self.where = where

    def get(self, name: str, *kinds: type[Any]) -> Any:
        """Return a field.

        Raises
        ------
        ArchiveError
            It is missing or not of one of the types `kinds`.
        """
        if name not in self.values:
            raise ArchiveError(f"{self.where}: the field {name!r} is missing.")
        value = self.values[name]
        if type(value) not in kinds:
            allowed = " or ".join(_NAMES[kind] for kind in kinds)
            raise ArchiveError(f"{self.where}: the field {name!r} must be {allowed}, not {_kind(value)}.")
        return value

    def objects(self, name: str) -> list[Fields]:
        """Return a field that is a list of objects."""
        return [
            Fields(item, f"{self.where}: {name}[{position}]")
            for position, item in enumerate(self.get(name, list))
        ]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of strings."""
        values = self.get(name, list)
        if any(type(value) is not str for value in values):
            raise ArchiveError(f"{self.where}: the field {name!r} must have strings only.")
        return tuple(values)


_NAMES: dict[type[Any], str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "a string",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
