"""``trt-rt inspect FILE``: what a plan is, and what is in it as far as this machine can tell."""

from __future__ import annotations

import argparse
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_rt.cli.command import Subparsers, add_command, print_json, print_table
from trt_rt.errors import BackendError, PlanError

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
        "Say what a plan is and what is in it; without a GPU, as much as can be said without one.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a plan")
    parser.add_argument(
        "--engine-host-code-allowed",
        action="store_true",
        help="let a version-compatible plan run the code that it brings: only for files that you trust",
    )


def _run(arguments: argparse.Namespace) -> None:
    path: Path = arguments.file
    plan = _map(path)
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
        "io": [_describe(tensor) for tensor in contents.io] if contents else None,
        "profiles": contents.num_profiles if contents else None,
        "layers": contents.layers if contents else None,
        "memory_bytes": contents.memory if contents else None,
    }
    if arguments.json:
        print_json(found)
    else:
        _print(found)


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise PlanError(f"{path} is empty. Check that the file was written completely.")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read(plan: memoryview, name: str, *, host_code: bool) -> tuple[PlanKind, PlanContents | None, str]:
    """The kind, the contents, and if there are none why not.

    Raises
    ------
    PlanError
        If the file is no plan, or a damaged one as far as this can be told without loading it.
    """
    from trt_rt.backend import choose_backend, identify_plan
    from trt_rt.cli.plan_contents import load_contents, read_reference_plan

    kind = identify_plan(plan)
    if not kind.backends:
        raise PlanError(f"this file is {kind.description}. Check that it is a serialized engine.")
    if kind.backends == ("reference",):
        return kind, read_reference_plan(plan), ""
    try:
        backend = choose_backend(plan, "auto", name)
        return kind, load_contents(plan, backend, name, host_code_allowed=host_code), ""
    except (BackendError, PlanError) as error:  # what the first bytes say is worth something without the rest
        return kind, None, str(error)


def _describe(tensor: IOTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "mode": tensor.mode,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "location": tensor.location,
        "profiles": [
            {"min": list(profile.min), "opt": list(profile.opt), "max": list(profile.max)}
            for profile in tensor.profiles
        ],
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
        " / ".join(_sizes(profile[limit]) for limit in ("min", "opt", "max"))
        for profile in tensor["profiles"]
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


def _sizes(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"


def _layer_row(layer: Any) -> tuple[str, str]:
    # Of a plan that was built without detailed verbosity the inspector has only the names.
    if isinstance(layer, dict):
        return str(layer.get("Name", "")), str(layer.get("LayerType", ""))
    return str(layer), ""
