"""``trt-rt bench TARGET``: what a call costs in each mode, next to other ways to run the same model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from trt_rt.cli.bench_target import add_target_arguments, integers, opened_target
from trt_rt.cli.command import Result, Subparsers, add_command, positive_integer, print_table, with_extra
from trt_rt.errors import SettingError

if TYPE_CHECKING:
    from trt_rt import report

__all__ = ["add"]

_DESCRIPTION = """\
TARGET is a plan, a program that trt_rt.save wrote (.pt2), an ONNX file, or module:callable. The callable
takes no arguments and returns what `trt-rt compile` takes: its model is compiled, and compared with eager
PyTorch, torch.compile and, where it is installed, Torch-TensorRT. An ONNX model is compared with ONNX
Runtime where that is installed.

All modes take turns in rounds of a few milliseconds, so that a slow moment of the machine hits all of them.
Times are medians with their confidence interval; what makes a comparison meaningless is said.
Ctrl-C ends the measurement and keeps what was measured until then.
"""


_MOST_THREADS = 1024


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(subparsers, "bench", _run, "Measure what a call costs in each mode.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{parser.description}\n\n{_DESCRIPTION}"
    add_target_arguments(parser)
    parser.add_argument("--modes", metavar="NAME[,NAME...]", help="the modes to measure (default: all)")
    parser.add_argument(
        "--useCudaGraph", dest="graphs_only", action="store_true", help="only modes that replay CUDA graphs"
    )
    parser.add_argument("--no-peers", action="store_true", help="measure no other way to run the model")
    parser.add_argument(
        "--threads",
        type=_threads,
        default=[1, 2, 4],
        metavar="N[,N...]",
        help="numbers of threads for the throughput, 0 for none (default: 1,2,4)",
    )
    parser.add_argument(
        "--duration", type=_seconds, default=1.0, metavar="SECONDS", help="for each mode (default: 1)"
    )
    parser.add_argument(
        "--iterations",
        type=positive_integer,
        default=10,
        metavar="N",
        help="at least so many calls of each mode",
    )
    parser.add_argument(
        "--warmUp",
        dest="warm_up",
        type=_seconds,
        default=5000.0,
        metavar="MS",
        help="the most milliseconds until the times of a mode are steady (default: 5000)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result as JSON, for --compare")
    parser.add_argument("--html", metavar="FILE", help="write a report to look at, in one file")
    parser.add_argument("--compare", metavar="FILE", help="an earlier --output of this machine")
    parser.add_argument(
        "--fail-above",
        type=_share,
        metavar="PERCENT%",
        help="with --compare: exit code 1 if a mode became slower by more than this and than its noise",
    )


def _run(arguments: argparse.Namespace) -> Result:
    with with_extra("bench", "trt-rt bench"):
        from trt_rt import report
    from trt_rt.backend.atomic_file import check_writable, write_atomically

    if arguments.fail_above is not None and not arguments.compare:
        raise SettingError("--fail-above needs --compare FILE: what to compare with.")
    # Everything that can be wrong with the files is found before minutes of measuring.
    for path in (arguments.output, arguments.html):
        if path:
            check_writable(path)
    before = report.read_result(arguments.compare) if arguments.compare else None
    settings = report.BenchSettings(
        modes=_modes(arguments),
        with_peers=not arguments.no_peers,
        timing=report.Timing(arguments.duration, arguments.iterations, arguments.warm_up / 1000),
        threads=[count for count in arguments.threads if count],
    )
    with opened_target(arguments) as (target, workloads):
        result = report.bench(target, workloads, settings, progress=_progress())
    if arguments.output:
        report.write_result(result, arguments.output)
    if arguments.html:
        write_atomically(arguments.html, report.render_page(result).encode("utf-8"))
    changes = report.compare(before, result) if before else ()
    found = result.to_json() | {"changes": [vars(change) | {"change": change.change} for change in changes]}
    return Result(
        found,
        lambda: _print(result, changes),
        problem=_problem(changes, arguments.fail_above),
        interrupted=result.interrupted,
    )


def _modes(arguments: argparse.Namespace) -> list[report.Mode]:
    from trt_rt import report

    modes = (
        [report.find_mode(name) for name in arguments.modes.split(",")] if arguments.modes else report.MODES
    )
    chosen = [mode for mode in modes if mode.uses_graphs or not arguments.graphs_only]
    if not chosen:
        raise SettingError("--useCudaGraph leaves none of --modes: name one that replays graphs.")
    return chosen


def _progress() -> Callable[[float], None]:
    """Return a function that shows the share of the work that is done, on a terminal."""
    if not sys.stderr.isatty():
        return lambda share: None
    try:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        return lambda share: None
    from rich.console import Console

    bar = Progress(
        TextColumn("measuring"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("measuring", total=1.0)
    bar.start()

    def show(share: float) -> None:
        bar.update(task, completed=share)
        if share >= 1.0:
            bar.stop()

    return show


def _print(result: report.Result, changes: tuple[report.Change, ...]) -> None:
    for shapes in dict.fromkeys(case.shapes for case in result.cases):
        rows = []
        for case in result.cases:
            if case.shapes == shapes:
                times = case.host
                row = [
                    case.mode,
                    *(
                        f"{value:.2f}"
                        for value in (times.median, times.low, times.high, times.p90, times.p99)
                    ),
                ]
                rows.append([*row, f"{case.done.median:.2f}"])
        columns = ("mode", "median µs", "low", "high", "90 %", "99 %", "done")
        print_table(f"{result.target}, {shapes}", columns, rows)
    if result.concurrency:
        print_table(
            "Throughput, pre-allocated",
            ("threads", "calls/s", "median µs", "99 %"),
            [
                (
                    str(level.threads),
                    f"{level.calls_per_second:,.0f}",
                    f"{level.done.median:.2f}",
                    f"{level.done.p99:.2f}",
                )
                for level in result.concurrency
            ],
        )
    if changes:
        print_table(
            "Compared with the earlier result",
            ("mode", "before µs", "after µs", "change", "at least", "at most"),
            [
                (
                    change.name,
                    f"{change.before:.2f}",
                    f"{change.after:.2f}",
                    f"{change.change:+.1%}",
                    f"{change.low:+.1%}",
                    f"{change.high:+.1%}",
                )
                for change in changes
            ],
        )
    for name, reason in result.skipped.items():
        print(f"not measured: {name}: {reason}")
    for note in result.notes:
        print(f"note: {note}")
    if result.interrupted:
        print("The measurement was interrupted: these are the rounds until then.")


def _problem(changes: tuple[report.Change, ...], limit: float | None) -> str:
    slower = [change for change in changes if limit is not None and change.is_slower_than(limit)]
    if not slower:
        return ""
    names = ", ".join(f"{change.name} ({change.change:+.1%})" for change in slower)
    return f"slower than before by more than {limit:.1%}, and by more than the noise: {names}."


def _threads(text: str) -> list[int]:
    counts = integers(text)
    if max(counts) > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} has more than {_MOST_THREADS} threads")
    return counts


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"must be positive, and is {text}")
    return value


def _share(text: str) -> float:
    """Parse ``5%``."""
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not text.endswith("%") or not 0 <= value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage, such as 5%")
    return value
