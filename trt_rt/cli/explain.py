"""``trt-rt explain TARGET``: what a call does, and what its time goes to, in words."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from trt_rt.cli.bench_target import add_target_arguments, opened_target
from trt_rt.cli.command import Result, Subparsers, add_command, positive_integer, with_extra
from trt_rt.cli.streams import printable
from trt_rt.errors import SettingError

if TYPE_CHECKING:
    from trt_rt import Explanation, report

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(subparsers, "explain", _run, "Make calls, and tell what the last one did and why.")
    add_target_arguments(parser)
    parser.add_argument(
        "--mode", default="fresh", metavar="NAME", help="how to call, as for trt-rt bench (default: fresh)"
    )
    parser.add_argument(
        "--calls",
        type=positive_integer,
        default=3,
        metavar="N",
        help="explain the Nth call; the first ones do what later ones need not (default: 3)",
    )


def _run(arguments: argparse.Namespace) -> Result:
    with with_extra("bench", "trt-rt explain"):
        from trt_rt.report import find_mode
    mode = find_mode(arguments.mode)
    with opened_target(arguments) as (target, workloads):
        explanations = [_explain(mode, arguments.calls, target, workload) for workload in workloads]
    found = [{"shapes": shapes, **explanation.to_json()} for shapes, explanation in explanations]
    return Result(found, lambda: _print(explanations))


def _explain(
    mode: report.Mode, calls: int, target: report.Target, workload: report.Workload
) -> tuple[str, Explanation]:
    import torch

    import trt_rt

    with ExitStack() as stack, torch.no_grad():
        call = mode.call(target, workload, stack)
        if not isinstance(call.function, torch.nn.Module):
            raise SettingError(
                f"--mode {mode.name}: a bound call only enqueues, so there is nothing to explain. Choose a "
                "mode in which the module is called."
            )
        for _ in range(calls - 1):
            call()
        return workload.label, trt_rt.explain(call.function, *call.arguments, **dict(call.keywords or {}))


def _print(explanations: list[tuple[str, Explanation]]) -> None:
    for shapes, explanation in explanations:
        if len(explanations) > 1:
            print(printable(f"{shapes}:"))
        print(printable(str(explanation), keep="\n"))
