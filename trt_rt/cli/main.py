"""Parse the command line, run one command, turn errors into sentences.

Each command is a module with ``add``, which adds its parser, and a function that runs it. What a command
needs is imported when it runs, so that ``trt-rt --help`` is quick and a missing package of one is no matter
to another.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from trt_rt import __version__
from trt_rt.cli import build, demo, doctor, inspect
from trt_rt.errors import TRTError

__all__ = ["main"]

_COMMANDS = (doctor, build, inspect, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. Default: those of the process.

    Returns
    -------
    int
        0; or 1 after an error, which is a sentence on stderr; or 130 after an interrupt from the keyboard.
        With ``--debug`` an error is raised instead. Wrong usage exits with 2, by argparse.
    """
    arguments = _make_parser().parse_args(argv)
    if arguments.debug:
        logging.basicConfig(level=logging.INFO)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if arguments.debug:
            raise
        print(f"trt-rt: {_explain(error)}", file=sys.stderr)
        return 1
    return 0


def _explain(error: Exception) -> str:
    if isinstance(error, TRTError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trt-rt", description="TensorRT engines inside PyTorch.")
    parser.add_argument("--version", action="version", version=f"trt_rt {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(subparsers)
    return parser
