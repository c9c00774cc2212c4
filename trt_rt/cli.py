"""The command ``trt-rt``.

Each subcommand is one function that adds its parser and one that runs it. What a subcommand needs is
imported when it runs, so that ``trt-rt --help`` is instant and a missing package of one is no matter to
another.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from trt_rt._version import __version__
from trt_rt.errors import TRTError

__all__ = ["main"]

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


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
    return f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trt-rt", description="TensorRT engines inside PyTorch.")
    parser.add_argument("--version", action="version", version=f"trt_rt {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_demo,):
        add(subparsers)
    return parser


def _add_subcommand(
    subparsers: _Subparsers, name: str, run: Callable[[argparse.Namespace], None], summary: str
) -> argparse.ArgumentParser:
    """Add a subcommand with the options that all of them have."""
    parser = subparsers.add_parser(name, help=summary, description=summary)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--debug", action="store_true", help="log to stderr, and show the traceback of an error"
    )
    parser.set_defaults(run=run)
    return parser


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _add_demo(subparsers: _Subparsers) -> None:
    parser = _add_subcommand(
        subparsers,
        "demo",
        _run_demo,
        "Build an engine with the best backend here and run handwritten digits through it in every mode.",
    )
    parser.add_argument(
        "--calls",
        type=_positive_integer,
        default=500,
        metavar="N",
        help="calls to time per mode and batch size (default: %(default)s)",
    )


def _positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, and is {value}")
    return value


def _run_demo(arguments: argparse.Namespace) -> None:
    try:
        from rich.console import Console

        from trt_rt.demo.report import print_report
        from trt_rt.demo.run import run_demo
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "trt_rt":
            raise
        raise TRTError(
            f"the demo needs the package {error.name.partition('.')[0]}, which is not installed; "
            "install what it needs with: pip install 'trt_rt[demo]'"
        ) from error
    report = run_demo(arguments.calls)
    if arguments.json:
        _print_json(report.as_json())
    else:
        print_report(report, Console())
    if report.disagreeing_modes:
        raise TRTError(
            "these modes read digits differently from eager PyTorch: " + ", ".join(report.disagreeing_modes)
        )


if __name__ == "__main__":
    raise SystemExit(main())
