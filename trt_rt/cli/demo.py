"""``trt-rt demo``: a trained network on real images, in every mode of the runtime."""

from __future__ import annotations

import argparse

from trt_rt.cli.command import Result, Subparsers, add_command, positive_integer, with_extra

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers,
        "demo",
        _run,
        "Build an engine with the best backend here and run handwritten digits through it in every mode.",
    )
    parser.add_argument(
        "--calls",
        type=positive_integer,
        default=500,
        metavar="N",
        help="calls to time per mode and batch size (default: %(default)s)",
    )


def _run(arguments: argparse.Namespace) -> Result:
    with with_extra("demo", "the demo"):
        from trt_rt.cli.console import make_console
        from trt_rt.demo.report import print_report
        from trt_rt.demo.run import run_demo
    report = run_demo(arguments.calls)
    problem = ""
    if report.disagreeing_modes:
        modes = ", ".join(report.disagreeing_modes)
        problem = f"these modes read digits differently from eager PyTorch: {modes}"
    return Result(report.as_json(), lambda: print_report(report, make_console()), problem)
