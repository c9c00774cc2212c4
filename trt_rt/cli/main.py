"""The program ``trt-rt``: parse the command line, run one command, turn errors into sentences.

Each command is a module with two functions: ``add`` adds its parser, and the function that it registers does
the work and returns a `Result`. A command imports what it needs when it runs. So ``trt-rt --help`` is quick,
and a package that only one command needs can be missing for the others.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from trt_rt import __version__
from trt_rt.cli import (
    bench,
    build,
    cache,
    compile,
    convert,
    demo,
    doctor,
    explain,
    export_triton,
    inspect,
    package,
    serve,
    verify,
)
from trt_rt.cli.command import Result, print_json
from trt_rt.cli.streams import checked_stdout, diverted_stdout, prepare_streams, print_error, printable
from trt_rt.errors import TRTError

__all__ = ["main"]

_COMMANDS = (
    doctor,
    build,
    compile,
    bench,
    explain,
    cache,
    inspect,
    verify,
    convert,
    package,
    export_triton,
    serve,
    demo,
)

_INTERRUPTED = 128 + 2
_READER_GONE = 128 + 13
"""Exit codes that a shell gives for programs that SIGINT and SIGPIPE end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. Default: those of the process.

    Returns
    -------
    int
        0 after success. 1 after an error, which is reported as a sentence on stderr. 130 after an interrupt
        from the keyboard. 141 if the reader of standard output has gone, as in ``trt-rt doctor | head -1``.
        With ``--debug`` an error is raised instead. Wrong usage exits with 2, by argparse.
    """
    prepare_streams()
    arguments = _make_parser().parse_args(argv)
    if arguments.debug:
        logging.basicConfig(level=logging.INFO)
    run: Callable[[argparse.Namespace], Result] = arguments.run
    try:
        with diverted_stdout() if arguments.json else nullcontext():
            result = run(arguments)
        return _print(result, as_json=arguments.json)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        if arguments.debug:
            raise
        print_error(f"trt-rt: {_explain(error)}")
        return 1


def _print(result: Result, *, as_json: bool) -> int:
    try:
        with checked_stdout():
            if as_json:
                print_json(result.json)
            else:
                result.show()
    except BrokenPipeError:
        return _READER_GONE
    if result.problem:
        raise TRTError(result.problem)
    return _INTERRUPTED if result.interrupted else 0


def _explain(error: Exception) -> str:
    if isinstance(error, TRTError):
        message = str(error)
    elif isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    elif isinstance(error, OSError) and error.strerror:
        message = error.strerror
    else:
        message = f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"
    return printable(message, keep="\n\t")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trt-rt", description="TensorRT engines inside PyTorch.")
    parser.add_argument("--version", action="version", version=f"trt_rt {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(subparsers)
    return parser
