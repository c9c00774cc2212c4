"""``trt-rt convert IN -o OUT``: a program in the form of Torch-TensorRT or of trt_rt, in the other form."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trt_rt.cli.command import Result, Subparsers, add_command
from trt_rt.cli.streams import printable

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers,
        "convert",
        _run,
        "Convert a file of Torch-TensorRT to one of trt_rt, or one of trt_rt to one of Torch-TensorRT.",
    )
    parser.add_argument("file", type=Path, metavar="IN", help="what trt_rt.save or Torch-TensorRT wrote")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the new file, in the other form"
    )
    parser.add_argument(
        "--torch-tensorrt",
        metavar="VERSION",
        help="of the Torch-TensorRT that will load the new file, such as 2.13; the default belongs to this "
        "PyTorch",
    )


def _run(arguments: argparse.Namespace) -> Result:
    from trt_rt.archive.conversion import convert

    done = convert(arguments.file, arguments.output, version=arguments.torch_tensorrt)
    found: dict[str, Any] = {
        "file": str(arguments.output),
        "form": done.form,
        "version": done.version,
        "engines": done.engines,
        "bytes": arguments.output.stat().st_size,
    }
    return Result(found, lambda: _print(found))


def _print(found: dict[str, Any]) -> None:
    engines = "1 engine" if found["engines"] == 1 else f"{found['engines']} engines"
    form = f"{found['form']} {found['version']}".strip()
    print(printable(f"{found['file']}: a program with {engines}, for {form}, {found['bytes']:,} bytes"))
