"""Reads JSON objects of a plan, and refuses everything unexpected."""

from __future__ import annotations

from typing import Any

from trt_rt.errors import PlanError

__all__ = ["Fields"]

_INT64_MIN = -(2**63)
_INT64_MAX = 2**63 - 1


class Fields:
    """A JSON object whose fields must all be present, have the right type, and be read.

    Parameters
    ----------
    json : object
        The result of the JSON parser.
    what : str
        Name of the described thing, for messages.

    Raises
    ------
    PlanError
        `json` is no object. Every method raises it for a field that is missing or not as asked for.
    """

    def __init__(self, json: object, what: str) -> None:
        if not isinstance(json, dict):
            raise PlanError(f"the plan's header is malformed: {what} is no object")
        self._rest: dict[str, Any] = dict(json)
        self._what = what

    def value(self, key: str) -> Any:
        """Read a field of any type."""
        if key not in self._rest:
            raise PlanError(f"the plan's header is malformed: {self._what} has no {key!r}")
        return self._rest.pop(key)

    def text(self, key: str) -> str:
        """Read a string."""
        return str(self._typed(key, str))

    def optional_text(self, key: str) -> str | None:
        """Read a string or null."""
        value = self.value(key)
        if value is not None and not isinstance(value, str):
            raise self._malformed(key)
        return value

    def choice(self, key: str, choices: Any) -> str:
        """Read a string that is one of `choices`."""
        value = self.text(key)
        if value not in choices:
            raise self._malformed(key)
        return value

    def flag(self, key: str) -> bool:
        """Read a boolean."""
        return bool(self._typed(key, bool))

    def integer(self, key: str, low: int = _INT64_MIN, high: int = _INT64_MAX) -> int:
        """Read an integer between `low` and `high`."""
        return self.check_integer(self.value(key), key, low, high)

    def integers(self, key: str, low: int, high: int, most: int) -> tuple[int, ...]:
        """Read a list of at most `most` integers between `low` and `high`."""
        return self.check_integers(self.value(key), key, low, high, most)

    def items(self, key: str, most: int | None = None) -> list[Any]:
        """Read a list of at most `most` elements."""
        value: list[Any] = self._typed(key, list)
        if most is not None and len(value) > most:
            raise PlanError(
                f"the plan's header is malformed: {self._what} has {len(value)} {key}, more than {most}"
            )
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Read an object."""
        value: dict[str, Any] = self._typed(key, dict)
        return value

    def finish(self) -> None:
        """Refuse fields that have not been read."""
        if self._rest:
            raise PlanError(f"the plan's header is malformed: {self._what} has unknown {sorted(self._rest)}")

    @staticmethod
    def check_integer(value: object, what: str, low: int = _INT64_MIN, high: int = _INT64_MAX) -> int:
        """Return `value` if it is an integer between `low` and `high`."""
        if type(value) is not int or not low <= value <= high:
            raise PlanError(f"the plan's header is malformed: {what} is not an integer from {low} to {high}")
        return value

    @classmethod
    def check_integers(cls, value: object, what: str, low: int, high: int, most: int) -> tuple[int, ...]:
        """Return `value` as a tuple if it is a list of at most `most` integers between `low` and `high`."""
        if not isinstance(value, list) or len(value) > most:
            raise PlanError(
                f"the plan's header is malformed: {what} is not a list of at most {most} integers"
            )
        return tuple(cls.check_integer(element, what, low, high) for element in value)

    def _typed(self, key: str, kind: type[Any]) -> Any:
        value = self.value(key)
        if type(value) is not kind:
            raise self._malformed(key)
        return value

    def _malformed(self, key: str) -> PlanError:
        return PlanError(f"the plan's header is malformed: {key!r} of {self._what} has an unexpected value")
