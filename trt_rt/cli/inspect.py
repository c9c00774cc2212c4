"""``trt-rt inspect FILE``: the kind of a plan, and as much of its contents as this machine can read."""

from __future__ import annotations

import argparse
import mmap
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_rt._core.dtype_name import dtype_name
from trt_rt.cli.archive_contents import describe_archive
from trt_rt.cli.command import Result, Subparsers, add_command, print_table
from trt_rt.errors import ArchiveError, BackendError, PlanError

if TYPE_CHECKING:
    from trt_rt._core.io_tensor import IOTensor
    from trt_rt.backend import PlanKind
    from trt_rt.cli.plan_contents import PlanContents

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers,
        "inspect",
        _run,
        "Show what a plan or a program holds, and run nothing of it. Without a GPU, some kinds show less.",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a plan, or the file of a program",
    )
    parser.add_argument(
        "--engine-host-code-allowed",
        action="store_true",
        help="let a version-compatible plan run the code that it contains; only for files that you trust",
    )


def _run(arguments: argparse.Namespace) -> Result:
    path: Path = arguments.file
    plan = _bytes_of(path)
    if bytes(plan[:4]) == b"PK\x03\x04":  # a ZIP file
        if not path.is_file():  # a pipe, which is read to its end now
            raise ArchiveError(f"{path} is not a regular file, and an archive must be one.")
        return describe_archive(path)
    try:
        kind, contents, why_not = _read(plan, path.name, host_code=arguments.engine_host_code_allowed)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    found: dict[str, Any] = {
        "file": str(path),
        "kind": kind.description,
        "version": kind.version_text,
        "bytes": len(plan),
        "backends": list(kind.backends),
        "why_not_loaded": why_not,
        "io": [_describe(tensor, contents) for tensor in contents.io] if contents else None,
        "profiles": contents.num_profiles if contents else None,
        "layers": contents.layers if contents else None,
        "memory_bytes": contents.memory if contents else None,
    }
    return Result(found, lambda: _print(found))


def _bytes_of(path: Path) -> memoryview:
    """Return the content of a file, mapped into memory, or of a pipe, read to its end."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISFIFO(status.st_mode):
            content = memoryview(file.read())
        elif not stat.S_ISREG(status.st_mode):
            raise PlanError(f"{path} is a device, and not a file. Give the file that holds the plan.")
        elif status.st_size == 0:
            content = memoryview(b"")
        else:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if not content:
        raise PlanError(f"{path} is empty. Check that the file was written completely.")
    return content


def _read(plan: memoryview, name: str, *, host_code: bool) -> tuple[PlanKind, PlanContents | None, str]:
    """Return the kind, the contents or None, and why there are no contents.

    Raises
    ------
    PlanError
        The file is not a plan, or it is damaged in a way that shows without loading it.
    """
    from trt_rt.backend import identify_plan
    from trt_rt.cli.plan_contents import load_contents, read_reference_plan

    kind = identify_plan(plan)
    if not kind.backends:
        raise PlanError(f"this file is {kind.description}. Check that it is a serialized engine.")
    if kind.backends == ("reference",):
        return kind, read_reference_plan(plan), ""
    try:
        return kind, load_contents(plan, name, host_code_allowed=host_code), ""
    except (BackendError, PlanError) as error:
        # The kind and the version are known from the first bytes, and are worth showing alone.
        return kind, None, str(error)


def _describe(tensor: IOTensor, contents: PlanContents) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "mode": tensor.mode,
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
        "location": tensor.location,
        "profiles": [
            {"min": list(profile.min), "opt": list(profile.opt), "max": list(profile.max)}
            for profile in tensor.profiles
        ],
        "shapes": contents.output_shapes.get(tensor.name, []),
        "aliased_input": tensor.aliased_input,
    }


def _print(found: dict[str, Any]) -> None:
    rows = [
        ("kind", found["kind"]),
        ("version", found["version"] or "its first bytes do not tell"),
        ("size", f"{found['bytes']:,} bytes"),
        ("runs on", " or ".join(found["backends"])),
    ]
    if found["why_not_loaded"]:
        rows.append(("contents", f"not read here: {found['why_not_loaded']}"))
    else:
        rows.append(("profiles", str(found["profiles"])))
        rows += [(f"memory: {what}", f"{size:,} bytes") for what, size in found["memory_bytes"].items()]
    print_table(found["file"], ("what", "found"), rows)
    if found["io"] is not None:
        columns = ("tensor", "mode", "dtype", "shape", "in memory of", "profiles: min / opt / max")
        print_table("Inputs and outputs", columns, [_io_row(tensor) for tensor in found["io"]])
    if found["layers"] is not None:
        print_table("Layers", ("name", "type"), [_layer_row(layer) for layer in found["layers"]])


def _io_row(tensor: dict[str, Any]) -> tuple[str, ...]:
    ranges = (
        " / ".join(_sizes(limits[limit]) if limit in limits else "refused" for limit in ("min", "opt", "max"))
        for limits in tensor["profiles"] or tensor["shapes"]
    )
    place = f"input {tensor['aliased_input']!r}" if tensor["aliased_input"] else tensor["location"]
    return (
        tensor["name"],
        tensor["mode"],
        tensor["dtype"],
        _sizes(tensor["shape"]),
        place,
        "; ".join(ranges),
    )


def _sizes(sizes: Iterable[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes) or "scalar"


def _layer_row(layer: Any) -> tuple[str, str]:
    # A plan that was built without detailed verbosity has only the names of its layers.
    if isinstance(layer, dict):
        return str(layer.get("Name", "")), str(layer.get("LayerType", ""))
    return str(layer), ""
