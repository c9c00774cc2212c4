"""``trt-rt package FILE -o FOLDER``: a saved program, for C++ programs to load."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_rt.cli.command import Result, Subparsers, add_command

if TYPE_CHECKING:
    from trt_rt.deploy.packaging import Package

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers, "package", _run, "Compile a saved program for C++, with its engines' plans beside it."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what trt_rt.save wrote")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="is made if it does not exist; the files of an earlier package are replaced",
    )
    parser.add_argument(
        "--torchscript", action="store_true", help="also write program.ts, for torch::jit::load"
    )


def _run(arguments: argparse.Namespace) -> Result:
    from trt_rt.archive import load
    from trt_rt.deploy.packaging import package_program

    # Engines are loaded when they are called, and packaging calls none.
    program = load(arguments.file, eager=False)
    package = package_program(program.exported(), arguments.output, torchscript=arguments.torchscript)
    found: dict[str, Any] = {
        "folder": str(package.folder),
        "engines": package.engines,
        "files": dict(package.sizes),
    }
    return Result(found, lambda: _print(package))


def _print(package: Package) -> None:
    engines = "1 engine" if package.engines == 1 else f"{package.engines} engines"
    print(f"{package.folder}: a program with {engines}, for libtrt_rt_runtime.so")
    for name, size in package.sizes.items():
        print(f"  {name}  {size:,} bytes")
