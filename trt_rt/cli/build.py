"""``trt-rt build MODEL -o FILE``: an engine from an ONNX file or a PyTorch model."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import suppress
from typing import Any

from trt_rt.cli.command import Result, Subparsers, add_command, positive_integer
from trt_rt.cli.model_source import is_same_file, model_options, refuse_exit
from trt_rt.cli.streams import printable
from trt_rt.errors import CompileError

__all__ = ["add"]

_DESCRIPTION = """\
MODEL is an ONNX file, or module:callable. The callable takes no arguments and returns the arguments of
trt_rt.build in one of these forms:

  (model, arg_inputs)                  a module and a tuple of example inputs
  (model, arg_inputs, dynamic_shapes)  and its dynamic shapes, as torch.export.export takes them
  a dict                               arguments of trt_rt.build by name, "model" among them

The module is looked for in the current folder too. An option of this command overrides the dict.
"""


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers, "build", _run, "Build an engine from an ONNX file or a PyTorch model, and write the plan."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{parser.description}\n\n{_DESCRIPTION}"
    parser.add_argument("model", metavar="MODEL", help="an ONNX file, or module:callable")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="where the plan is written: a file is replaced once the plan is complete, a pipe or a device is "
        "written into",
    )
    parser.add_argument("--backend", help="the backend that builds (default: the best that can build here)")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16", "strong"])
    parser.add_argument(
        "--profile",
        action="append",
        type=_profile,
        metavar="NAME=MIN:OPT:MAX[,NAME=...]",
        help="an optimization profile, such as x=1x3x224x224:8x3x224x224:32x3x224x224; again for another",
    )
    parser.add_argument("--workspace-bytes", type=positive_integer, metavar="N")
    parser.add_argument("--optimization-level", type=int, choices=range(6), metavar="0..5")
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument(
        "--compute-capability",
        action="append",
        type=_compute_capability,
        metavar="X.Y",
        help="a GPU to build for (TensorRT-RTX); again for another",
    )
    parser.add_argument("--timing-cache", metavar="FILE", help="a file of measured timings, read and updated")
    for flag in _FLAGS:
        group = targets if flag == "hardware_compatible" else parser
        group.add_argument(f"--{flag.replace('_', '-')}", action="store_true", default=None)


_FLAGS = ("version_compatible", "hardware_compatible", "refittable", "weight_streaming")


def _profile(text: str) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Parse ``x=1x3:2x3:4x3,y=...``. A name may contain any character but ","; the last "=" ends it."""
    profile: dict[str, tuple[tuple[int, ...], ...]] = {}
    for entry in text.split(","):
        name, separator, limits = entry.rpartition("=")
        try:
            ranges = tuple(
                tuple(int(size) for size in limit.split("x")) if limit else () for limit in limits.split(":")
            )
        except ValueError:
            ranges = ()
        if not name or not separator or len(ranges) != 3:
            raise argparse.ArgumentTypeError(f"{entry!r} is not NAME=MIN:OPT:MAX, such as x=1x3:8x3:32x3")
        profile[name] = ranges
    return profile


def _compute_capability(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not X.Y, such as 8.6")
    return int(match[1]), int(match[2])


def _run(arguments: argparse.Namespace) -> Result:
    import trt_rt
    from trt_rt.compiler import check_writable, write_atomically

    # The model's code may change the current folder.
    output = os.path.abspath(arguments.output)
    _check_output(arguments, check_writable)
    options = _given_options(arguments)
    with refuse_exit(arguments.model):
        options = model_options(arguments.model) | options
        plan = trt_rt.build(options.pop("model"), **options)
    write_atomically(output, plan)
    kind = trt_rt.backend.identify_plan(plan)
    found = {"file": arguments.output, "bytes": len(plan), "kind": kind.description}
    summary = printable(f"{arguments.output}: {len(plan):,} bytes, {kind.description}")
    # A plan that went to standard output must stay the only thing there.
    return Result(found, lambda: print(summary, file=sys.stderr if _is_stdout(output) else sys.stdout))


def _check_output(arguments: argparse.Namespace, check_writable: Any) -> None:
    """Raise, before a build of minutes, if the plan cannot be written or would replace an input."""
    check_writable(arguments.output)
    if arguments.json and _is_stdout(os.path.abspath(arguments.output)):
        raise CompileError("the plan and the JSON cannot both go to standard output: give another --output.")
    for what, path in (("model", arguments.model), ("timing cache", arguments.timing_cache)):
        if path is not None and is_same_file(path, arguments.output):
            raise CompileError(
                f"{arguments.output!r} is the {what}, and the plan would replace it: give another --output."
            )


def _is_stdout(path: str) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(1))
    return False


def _given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the command line by their names in trt_rt.build; that has the defaults."""
    timing_cache = arguments.timing_cache and os.path.abspath(arguments.timing_cache)
    options = {
        "backend": arguments.backend,
        "precision": arguments.precision,
        "profiles": arguments.profile,
        "workspace_bytes": arguments.workspace_bytes,
        "optimization_level": arguments.optimization_level,
        "compute_capabilities": arguments.compute_capability,
        "timing_cache": timing_cache,
    }
    options |= {flag: getattr(arguments, flag) for flag in _FLAGS}
    return {name: value for name, value in options.items() if value is not None}
