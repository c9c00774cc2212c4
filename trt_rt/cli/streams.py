"""The process's standard streams: kept usable, and standard output kept free of other output for JSON."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

__all__ = ["checked_stdout", "diverted_stdout", "prepare_streams", "print_error", "printable"]


def prepare_streams() -> None:
    """Make the standard streams safe to write to.

    A stream that the caller, or code that runs here, has closed goes to ``/dev/null``. Otherwise the next
    file that the process opens gets the number of its descriptor, and whatever libraries print goes into that
    file. Characters that the locale cannot encode are written as escapes.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(opened, True)  # as standard streams are
    if sys.stdout is None or sys.stdout.closed:
        sys.stdout = _nowhere()
    if sys.stderr is None or sys.stderr.closed:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def diverted_stdout() -> Iterator[None]:
    """Send what Python, C code and subprocesses print meanwhile to standard error."""
    saved = os.dup(1)
    _flush(sys.stdout)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        # Python's own buffer may hold text of code that kept a reference to the stream.
        for stream in (sys.stdout, sys.__stdout__):
            with contextlib.suppress(OSError):
                _flush(stream)
        os.dup2(saved, 1)
        os.close(saved)


@contextlib.contextmanager
def checked_stdout() -> Iterator[None]:
    """Write out everything that is printed meanwhile, or raise.

    Raises
    ------
    OSError
        Standard output cannot be written to. What is left of the output is dropped: otherwise the interpreter
        would fail at it once more when it exits.
    """
    try:
        yield
        _flush(sys.stdout)
    except OSError:
        _drop_output(sys.stdout)
        raise


def print_error(message: str) -> None:
    """Print a message on standard error. If that fails, there is no other place to report to."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        _drop_output(sys.stderr)


def printable(text: str, *, keep: str = "") -> str:
    r"""Replace characters that a terminal would act on, or that cannot be encoded, by escapes.

    Parameters
    ----------
    text : str
        Any text, such as the name of a tensor in a file from elsewhere.
    keep : str
        Characters that stay as they are.

    Examples
    --------
    >>> printable("bell\a, colour\x1b[31m")
    'bell\\x07, colour\\x1b[31m'
    """
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _flush(stream: TextIO | None) -> None:
    if stream is not None and not stream.closed:
        stream.flush()


def _drop_output(stream: TextIO) -> None:
    """Send what a stream still holds to ``/dev/null``."""
    with contextlib.suppress(OSError, ValueError):  # a stream in memory has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
