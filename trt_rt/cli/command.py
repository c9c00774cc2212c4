"""The common parts of all commands: options, types of arguments, the result, and output."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from trt_rt.cli.streams import printable
from trt_rt.errors import TRTError

__all__ = [
    "Result",
    "Subparsers",
    "add_command",
    "positive_integer",
    "print_json",
    "print_table",
    "with_extra",
]

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


@dataclass(frozen=True)
class Result:
    """The result of a command.

    Attributes
    ----------
    json : object
        The result for programs: what `json.dumps` takes.
    show : callable
        Prints the result for people.
    problem : str
        A sentence, if the command ran to its end and what it found is a failure. Empty otherwise.
    interrupted : bool
        Whether Ctrl-C ended the command, which kept what it had found until then.
    """

    json: Any
    show: Callable[[], None]
    problem: str = ""
    interrupted: bool = False


def add_command(
    subparsers: Subparsers, name: str, run: Callable[[argparse.Namespace], Result], summary: str
) -> argparse.ArgumentParser:
    """Add a command with the options that every command has.

    Parameters
    ----------
    subparsers : argparse subparsers
        Of the program.
    name : str
        The command.
    run : callable
        Takes the parsed arguments, does the work and returns the result. It prints nothing itself.
    summary : str
        One sentence for the help text.
    """
    parser = subparsers.add_parser(name, help=summary, description=summary)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--debug", action="store_true", help="log to stderr, and show the traceback of an error"
    )
    parser.set_defaults(run=run)
    return parser


@contextmanager
def with_extra(extra: str, what: str) -> Iterator[None]:
    """Turn the failure of an import within into an error that names the extra of trt_rt to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "trt_rt"):
            raise
        raise TRTError(
            f"{what} needs the package {package}, which is not installed; install what it needs with: "
            f"pip install 'trt_rt[{extra}]'"
        ) from error


def positive_integer(text: str) -> int:
    """Return a number of at least 1; for ``type=`` of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, and is {value}")
    return value


def print_json(value: Any) -> None:
    """Print a value for programs. Characters beyond ASCII are escaped, so that every locale can print it."""
    print(json.dumps(value, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people, with rich if it is installed, else in plain columns.

    Characters that a terminal would act on are printed as escapes: names come from files.
    """
    title = printable(title)
    rows = [[printable(cell) for cell in row] for row in rows]
    try:
        from rich.table import Table
        from rich.text import Text

        from trt_rt.cli.console import make_console
    except ModuleNotFoundError:
        _print_plain_table(title, columns, rows)
        return
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    make_console().print(table)


def _print_plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [columns, *rows]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    print(title)
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
