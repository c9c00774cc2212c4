"""Engines in files of Torch-TensorRT: pickles, of which only the strings are read.

No unpickler runs, and no class is ever looked up. An interpreter of the few opcodes that such a pickle has
puts its strings together; any other opcode or name is refused.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trt_rt.archive.container import Container, is_container
from trt_rt.errors import ArchiveError

__all__ = ["PickledEngine", "read_engine"]

_ENGINE = "__torch__.torch.classes.tensorrt Engine"
_TYPED = "torch.jit._pickle restore_type_tag"
_GLOBALS = (_ENGINE, _TYPED)
_DELIMITER = "%"
_NAME, _PLAN, _INPUTS, _OUTPUTS, _FEWEST = 1, 3, 4, 5, 10
_MOST_OPCODES = 1000
_MARK: Any = object()


@dataclass(frozen=True)
class PickledEngine:
    """An engine as Torch-TensorRT stores it.

    Attributes
    ----------
    name : str
        Of the engine.
    plan : bytes
        The plan.
    inputs, outputs : tuple of str
        Names of its tensors, in the order of a call.
    """

    name: str
    plan: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_engine(record: memoryview, where: str) -> PickledEngine:
    """Return the engine of a record.

    Parameters
    ----------
    record : memoryview
        What PyTorch's serializer of C++ objects wrote: a ZIP file with a pickle.
    where : str
        For messages.

    Raises
    ------
    ArchiveError
        The record is anything else.
    """
    if not is_container(record):
        raise ArchiveError(f"{where} is not an engine as Torch-TensorRT's C++ runtime stores it.")
    container = Container(where, content=record)
    fields = _Interpreter(where).run(bytes(container.view("data.pkl")))
    if len(fields) < _FEWEST:
        raise ArchiveError(
            f"{where}: its engine has {len(fields)} fields, and at least {_FEWEST} are needed."
        )
    try:
        plan = base64.b64decode(fields[_PLAN], validate=True)
    except binascii.Error as error:
        raise ArchiveError(f"{where}: its plan is not base64: {error}.") from error
    inputs, outputs = (
        tuple(fields[position].split(_DELIMITER)) if fields[position] else ()
        for position in (_INPUTS, _OUTPUTS)
    )
    return PickledEngine(fields[_NAME], plan, inputs, outputs)


class _Object:
    """Stands for the engine until its state comes."""

    state: Any = None


class _Interpreter:
    """Runs the opcodes that the pickle of an engine has."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._run: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda argument: None,
            "FRAME": lambda argument: None,
            "GLOBAL": self._global,
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "MEMOIZE": lambda argument: self._put(len(self._memo)),
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "EMPTY_TUPLE": lambda argument: self._stack.append(()),
            "EMPTY_LIST": lambda argument: self._stack.append([]),
            "MARK": lambda argument: self._stack.append(_MARK),
            "BINUNICODE": self._stack.append,
            "SHORT_BINUNICODE": self._stack.append,
            "TUPLE2": self._pair,
            "APPENDS": self._extend,
            "NEWOBJ": self._new,
            "REDUCE": self._typed,
            "BUILD": self._build,
        }

    def run(self, content: bytes) -> list[str]:
        """Return the strings of the engine's state."""
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
                if opcode.name == "STOP":
                    break
                if number > _MOST_OPCODES or opcode.name not in self._run:
                    raise self._error(f"the opcode {opcode.name} is not one that an engine needs")
                self._run[opcode.name](argument)
            (made,) = self._stack
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ArchiveError):
                raise
            raise self._error(f"its pickle is damaged: {error}") from error
        state = made.state if isinstance(made, _Object) else None
        if not isinstance(state, list) or not all(type(field) is str for field in state):
            raise self._error("its pickle is not that of an engine")
        return state

    def _error(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self._where}: {what}. It is not read, because pickles can run code.")

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise self._error(f"it names {name[:80]!r}")
        self._stack.append(name)

    def _put(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def _pair(self, argument: Any) -> None:
        second, first = self._stack.pop(), self._stack.pop()
        self._stack.append((first, second))

    def _extend(self, argument: Any) -> None:
        mark = len(self._stack) - 1 - self._stack[::-1].index(_MARK)
        items = self._stack[mark + 1 :]
        del self._stack[mark:]
        self._stack[-1].extend(items)

    def _new(self, argument: Any) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if kind != _ENGINE or arguments != ():
            raise self._error("it makes another object than an engine")
        self._stack.append(_Object())

    def _typed(self, argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if function != _TYPED or len(arguments) != 2 or type(arguments[0]) is not list:
            raise self._error("it calls a function")
        self._stack.append(arguments[0])

    def _build(self, argument: Any) -> None:
        state, made = self._stack.pop(), self._stack[-1]
        if not isinstance(made, _Object):
            raise self._error("it gives a state to something else than an engine")
        made.state = state
