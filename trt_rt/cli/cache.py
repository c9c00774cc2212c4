"""``trt-rt cache``: the compiled programs on disk."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trt_rt.cli.command import Result, Subparsers, add_command, print_table
from trt_rt.cli.streams import printable
from trt_rt.errors import CompileError

if TYPE_CHECKING:
    from trt_rt.program.cache import ProgramCache

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(subparsers, "cache", _run, "List or remove the compiled programs on disk.")
    parser.add_argument("action", choices=["list", "clear"])
    parser.add_argument("--cache-dir", metavar="FOLDER", help="where they are (default: the user's cache)")


def _run(arguments: argparse.Namespace) -> Result:
    from trt_rt.program.cache import ProgramCache, cache_folder

    folder = Path(arguments.cache_dir) if arguments.cache_dir else cache_folder()
    if folder is None:
        raise CompileError(
            "the user's cache folder is not known without the package platformdirs: install it with "
            "pip install 'trt_rt[compile]', or name a folder with --cache-dir."
        )
    cache = ProgramCache(folder)
    return _list(cache) if arguments.action == "list" else _clear(cache)


def _list(cache: ProgramCache) -> Result:
    entries = cache.entries()
    found = {
        "folder": str(cache.folder),
        "programs": [
            {
                "key": entry.key,
                "bytes": entry.size,
                "last_used": entry.last_used,
                "model": entry.model,
                "backend": entry.backend,
                "engines": entry.engines,
            }
            for entry in entries
        ],
    }

    def show() -> None:
        rows = [
            (
                entry.key[:12],
                entry.model or "(damaged)",
                entry.backend,
                str(entry.engines),
                f"{entry.size:,}",
                time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used)),
            )
            for entry in entries
        ]
        columns = ("key", "model", "backend", "engines", "bytes", "last used")
        print_table(f"{len(entries)} programs in {cache.folder}", columns, rows)

    return Result(found, show)


def _clear(cache: ProgramCache) -> Result:
    count, size = cache.clear()
    text = printable(f"removed {count} programs of {size:,} bytes from {cache.folder}")
    return Result({"folder": str(cache.folder), "removed": count, "bytes": size}, lambda: print(text))
