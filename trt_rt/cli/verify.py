"""``trt-rt verify FILE``: whether a file of a program is whole, and who signed it."""

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
        subparsers, "verify", _run, "Compare a program's file with its hashes, and check its signature."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that trt_rt.save wrote")
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="KEY",
        help="refuse a file without the signature of this key: a PEM file, or a file with the secret",
    )


def _run(arguments: argparse.Namespace) -> Result:
    from trt_rt.archive.inspection import verify_archive

    verify_archive(arguments.file, arguments.public_key)
    found: dict[str, Any] = {
        "file": str(arguments.file),
        "whole": True,
        "signature": "right" if arguments.public_key else "not checked",
    }
    signature = "is signed with the key" if arguments.public_key else "its signature was not checked"
    return Result(found, lambda: print(printable(f"{arguments.file} is whole; {signature}.")))
