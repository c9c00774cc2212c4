"""Reads JSON into PyTorch's dataclasses of exported programs, with every value's type checked.

PyTorch's own reader takes what comes where it has no dataclass. Fields that this PyTorch does not know are
left out, as there: a newer PyTorch may write them.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Hashable
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from torch._export.serde import schema
from torch._export.serde.union import _Union

from trt_rt.errors import ArchiveError

__all__ = ["read_schema"]

Result = TypeVar("Result")

_Reader = Callable[[Any], Any]
_INT64 = 2**63
_NOT_NUMBERS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


def read_schema(kind: type[Result], value: Any, where: str) -> Result:
    """Return a dataclass of ``torch._export.serde.schema``.

    Parameters
    ----------
    kind : type
        The dataclass.
    value : object
        Parsed JSON.
    where : str
        For messages.

    Raises
    ------
    ArchiveError
        A field is missing or of another type.
    """
    try:
        reader: _Reader = _reader(cast(Hashable, kind))
        result: Result = reader(value)
        return result
    except RecursionError as error:
        raise ArchiveError(f"{where}: it is nested too deeply.") from error
    except _WrongError as error:
        raise ArchiveError(f"{where} is not a program as PyTorch describes it: {error}.") from None


class _WrongError(ValueError):
    """A value has another type than its field."""


@cache
def _reader(kind: Any) -> _Reader:
    """Return the function that reads values of a type annotation."""
    if isinstance(kind, str):
        kind = getattr(schema, kind)
    if isinstance(kind, typing.ForwardRef):
        kind = getattr(schema, kind.__forward_arg__)
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return _reader(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return _optional(*(argument for argument in typing.get_args(kind) if argument is not type(None)))
    if origin is list:
        return _list(typing.get_args(kind)[0])
    if origin is dict:
        return _dict(typing.get_args(kind)[1])
    if isinstance(kind, type) and issubclass(kind, _Union):
        return _union(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return _enum(kind)
    return {bool: _bool, float: _float, int: _int, str: _str}[kind]


def _late(kind: Any) -> _Reader:
    """The reader of a type, looked up when it is first needed: types refer to each other."""
    found: _Reader | None = None

    def read(value: Any) -> Any:
        nonlocal found
        if found is None:
            found = _reader(kind)
        return found(value)

    return read


def _optional(kind: Any) -> _Reader:
    read = _late(kind)
    return lambda value: None if value is None else read(value)


def _list(kind: Any) -> _Reader:
    read = _late(kind)

    def read_list(value: Any) -> Any:
        _expect(value, list)
        return [read(item) for item in value]

    return read_list


def _dict(kind: Any) -> _Reader:
    read = _late(kind)

    def read_dict(value: Any) -> Any:
        _expect(value, dict)
        return {key: read(item) for key, item in value.items()}

    return read_dict


def _union(kind: Any) -> _Reader:
    hints = typing.get_type_hints(kind, globalns=vars(schema), include_extras=True)
    readers = {field.name: _late(hints[field.name]) for field in dataclasses.fields(kind)}

    def read_union(value: Any) -> Any:
        _expect(value, dict)
        if len(value) != 1:
            raise _WrongError(f"{kind.__name__} has {len(value)} values, and must have one")
        ((name, item),) = value.items()
        if name not in readers:
            raise _WrongError(f"{kind.__name__} has no {name[:60]!r}")
        return kind.create(**{name: readers[name](item)})

    return read_union


def _dataclass(kind: Any) -> _Reader:
    hints = typing.get_type_hints(kind, globalns=vars(schema), include_extras=True)
    fields = dataclasses.fields(kind)
    readers = {field.name: _late(hints[field.name]) for field in fields}
    needed = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def read_dataclass(value: Any) -> Any:
        _expect(value, dict)
        if missing := needed - value.keys():
            raise _WrongError(f"{kind.__name__} has no {min(missing)!r}")
        return kind(**{name: readers[name](item) for name, item in value.items() if name in readers})

    return read_dataclass


def _enum(kind: type[IntEnum]) -> _Reader:
    allowed = frozenset(int(member) for member in kind)

    def read_enum(value: Any) -> Any:
        _expect(value, int)
        if value not in allowed:
            raise _WrongError(f"{value} is no {kind.__name__}")
        return value

    return read_enum


def _expect(value: Any, kind: type[Any]) -> None:
    if type(value) is not kind:
        raise _WrongError(f"a {kind.__name__} is needed, not {type(value).__name__}")


def _bool(value: Any) -> Any:
    _expect(value, bool)
    return value


def _int(value: Any) -> Any:
    _expect(value, int)
    if not -_INT64 <= value < _INT64:
        raise _WrongError("an integer needs more than 64 bits")
    return value


def _float(value: Any) -> Any:
    if type(value) is str and value in _NOT_NUMBERS:
        return _NOT_NUMBERS[value]
    if type(value) is int:
        return float(_int(value))
    _expect(value, float)
    return value


def _str(value: Any) -> Any:
    _expect(value, str)
    return value
