"""The source code in a TorchScript file, parsed and not run.

TorchScript is written in Python's syntax. Classes and their methods are looked up by name; what a method may
say is decided where it is evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from trt_rt.archive.container import Container
from trt_rt.errors import ArchiveError

__all__ = ["ScriptSource"]

_FOLDER, _SUFFIX = "code/", ".py"
_LARGEST = 16 << 20
_DEEPEST = 100
_MOST_SIGNS = 3000
_TOKENS = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|[\n()\[\]{}.+\-*/%<>=~]')


class ScriptSource:
    """The classes and functions of a file.

    Parameters
    ----------
    container : Container
        The file. Its source files are parsed when they are first needed.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._files: dict[str, dict[str, ast.stmt]] = {}

    def method(self, kind: str, name: str) -> ast.FunctionDef:
        """Return a method of a class.

        Parameters
        ----------
        kind : str
            The class: its module and its name, with a space between them.
        name : str
            Of the method.

        Raises
        ------
        ArchiveError
            There is none, or its file is not TorchScript.
        """
        module, _, class_name = kind.partition(" ")
        found = self._file(module).get(class_name)
        if isinstance(found, ast.ClassDef):
            for statement in found.body:
                if isinstance(statement, ast.FunctionDef) and statement.name == name:
                    return statement
        raise ArchiveError(f"{self._container.path}: the class {kind[:80]!r} has no method {name!r}.")

    def function(self, module: str, name: str) -> ast.FunctionDef:
        """Return a function that is not a method.

        Raises
        ------
        ArchiveError
            There is none, or its file is not TorchScript.
        """
        found = self._file(module).get(name)
        if not isinstance(found, ast.FunctionDef):
            raise ArchiveError(f"{self._container.path}: there is no function {module[:80]}.{name[:80]}.")
        return found

    def texts(self) -> Iterator[str]:
        """Return the text of every source file.

        Raises
        ------
        ArchiveError
            A record is damaged or too large.
        """
        for name in self._container.records:
            if name.startswith(_FOLDER) and name.endswith(_SUFFIX):
                yield self._text(name)

    def _text(self, name: str) -> str:
        try:
            return self._container.text(name, _LARGEST).decode()
        except UnicodeDecodeError as error:
            raise ArchiveError(f"{self._container.path}, record {name!r}: it is not text.") from error

    def _file(self, module: str) -> dict[str, ast.stmt]:
        if module not in self._files:
            name = f"{_FOLDER}{module.replace('.', '/')}{_SUFFIX}"
            where = f"{self._container.path}, record {name!r}"
            text = self._text(name)
            _check_nesting(text, where)
            try:
                parsed = ast.parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise ArchiveError(f"{where}: it is not TorchScript: {error}.") from error
            self._files[module] = {
                statement.name: statement
                for statement in parsed.body
                if isinstance(statement, (ast.ClassDef, ast.FunctionDef))
            }
        return self._files[module]


def _check_nesting(text: str, where: str) -> None:
    """Refuse statements so deeply nested or so long that Python's parser could run out of stack."""
    depth = signs = 0
    for match in _TOKENS.finditer(text):
        token = match.group()
        if token == "\n":
            signs = 0 if depth == 0 else signs
        elif token in "([{":
            depth, signs = depth + 1, signs + 1
        elif token in ")]}":
            depth -= 1
        elif len(token) == 1:
            signs += 1
        if depth > _DEEPEST or signs > _MOST_SIGNS:
            raise ArchiveError(f"{where}: a statement is nested too deeply.")
