"""Reads pickles without an unpickler.

A pickle is a program that can call any function. This interpreter knows the opcodes that put values together,
and the few functions that its user names. It looks up no class, and refuses every other opcode and name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from trt_rt.errors import ArchiveError

__all__ = ["PickleReader", "PickledObject", "restored"]

_MARK: Any = object()


class PickledObject:
    """Stands for an object of a class that is not looked up.

    Attributes
    ----------
    kind : str
        Module and name of the class, with a space between them.
    state : object
        What the pickle gives it; None before.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.state: Any = None


class _Class(str):
    """The name of a class in a pickle. It is no string of the pickle, which can never become a class."""

    __slots__ = ()


def restored(value: Any, tag: Any) -> Any:
    """Return a value as it is; what PyTorch's ``restore_type_tag`` adds is the type of an empty list."""
    if type(value) not in (list, dict) or type(tag) is not str:
        raise ValueError("a type tag of neither a list nor a dict")
    return value


class PickleReader:
    """Runs the opcodes of one pickle.

    Parameters
    ----------
    where : str
        For messages.
    classes : callable
        Tells of the name of a class, "module name", whether objects of it may occur.
    functions : mapping
        Of the names of functions, in the same form, to functions of ours that are called instead. They check
        their arguments and raise ValueError.
    most_opcodes : int
        How many opcodes a pickle may have.
    persistent : callable, optional
        From a persistent identifier, which is any value, to a value. Raises ValueError.
    """

    def __init__(
        self,
        where: str,
        classes: Callable[[str], bool],
        functions: Mapping[str, Callable[..., Any]],
        most_opcodes: int,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._where = where
        self._classes = classes
        self._functions = functions
        self._most_opcodes = most_opcodes
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._run: dict[str, Callable[[Any], None]] = {
            "APPEND": self._append,
            "APPENDS": self._extend,
            "BINFLOAT": self._stack.append,
            "BINGET": self._get,
            "BININT": self._stack.append,
            "BININT1": self._stack.append,
            "BININT2": self._stack.append,
            "BINPERSID": self._person,
            "BINPUT": self._put,
            "BINUNICODE": self._stack.append,
            "BUILD": self._build,
            "EMPTY_DICT": lambda argument: self._stack.append({}),
            "EMPTY_LIST": lambda argument: self._stack.append([]),
            "EMPTY_TUPLE": lambda argument: self._stack.append(()),
            "FRAME": lambda argument: None,
            "GLOBAL": self._global,
            "LONG1": self._stack.append,
            "LONG_BINGET": self._get,
            "LONG_BINPUT": self._put,
            "MARK": lambda argument: self._stack.append(_MARK),
            "MEMOIZE": lambda argument: self._put(len(self._memo)),
            "NEWFALSE": lambda argument: self._stack.append(False),
            "NEWOBJ": self._new,
            "NEWTRUE": lambda argument: self._stack.append(True),
            "NONE": lambda argument: self._stack.append(None),
            "PROTO": lambda argument: None,
            "REDUCE": self._call,
            "SETITEM": self._set,
            "SETITEMS": self._update,
            "SHORT_BINUNICODE": self._stack.append,
            "STACK_GLOBAL": self._global_of_stack,
            "TUPLE": lambda argument: self._stack.append(tuple(self._above_mark())),
            "TUPLE1": lambda argument: self._tuple(1),
            "TUPLE2": lambda argument: self._tuple(2),
            "TUPLE3": lambda argument: self._tuple(3),
        }

    def read(self, content: bytes) -> Any:
        """Return what the pickle describes.

        Raises
        ------
        ArchiveError
            It has another opcode or name, or is damaged.
        """
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
                if opcode.name == "STOP":
                    break
                if number > self._most_opcodes or opcode.name not in self._run:
                    raise self._error(f"the opcode {opcode.name} is not one that it needs")
                self._run[opcode.name](argument)
            (found,) = self._stack
        except ArchiveError:
            raise
        # OverflowError and MemoryError: genops believes the lengths that a damaged pickle tells.
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise self._error(f"its pickle is damaged: {error}") from error
        return found

    def _error(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self._where}: {what}. It is not read, because pickles can run code.")

    def _global(self, name: str) -> None:
        if name in self._functions:
            self._stack.append(self._functions[name])
        elif self._classes(name):
            self._stack.append(_Class(name))
        else:
            raise self._error(f"it names {name[:80]!r}")

    def _global_of_stack(self, argument: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise self._error("it looks up a name that is not a string")
        self._global(f"{module} {name}")

    def _put(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def _tuple(self, size: int) -> None:
        items = tuple(self._stack[-size:])
        if len(items) != size or any(item is _MARK for item in items):
            raise ValueError("too few items for a tuple")
        del self._stack[-size:]
        self._stack.append(items)

    def _above_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("items without a mark")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _append(self, argument: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def _extend(self, argument: Any) -> None:
        items = self._above_mark()
        self._top(list).extend(items)

    def _set(self, argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._top(dict)[key] = value

    def _update(self, argument: Any) -> None:
        items = self._above_mark()
        self._top(dict).update(zip(items[::2], items[1::2], strict=True))

    def _top(self, kind: type[Any]) -> Any:
        found = self._stack[-1]
        if type(found) is not kind:
            raise ValueError(f"items for something else than a {kind.__name__}")
        return found

    def _person(self, argument: Any) -> None:
        if self._persistent is None:
            raise self._error("the opcode BINPERSID is not one that it needs")
        self._stack.append(self._persistent(self._stack.pop()))

    def _new(self, argument: Any) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if type(kind) is not _Class or arguments != ():
            raise self._error("it makes an object of no class that it may name")
        self._stack.append(PickledObject(str(kind)))

    def _call(self, argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(arguments) is not tuple or not any(function is known for known in self._functions.values()):
            raise self._error("it calls a function")
        self._stack.append(function(*arguments))

    def _build(self, argument: Any) -> None:
        state, made = self._stack.pop(), self._stack[-1]
        if type(made) is not PickledObject:
            raise self._error("it gives a state to something else than an object")
        made.state = state
