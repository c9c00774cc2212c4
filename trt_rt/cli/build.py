"""``trt-rt build MODEL -o FILE``: an engine from an ONNX file or a PyTorch model."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_rt.cli.command import Subparsers, add_command, positive_integer, print_json
from trt_rt.errors import CompileError

__all__ = ["add"]

_DESCRIPTION = """\
MODEL is an ONNX file, or module:callable. The callable is called with no arguments and returns what is
handed to trt_rt.build:

  (model, arg_inputs)                  a module and a tuple of example inputs
  (model, arg_inputs, dynamic_shapes)  and its dynamic shapes, as torch.export.export takes them
  a dict                               arguments of trt_rt.build by name, "model" among them

The module is looked for in the current folder too. An option of this command goes before what the dict says.
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
        "-o", "--output", type=Path, required=True, metavar="FILE", help="where the plan goes"
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
    parser.add_argument("--optimization-level", type=int, metavar="N")
    parser.add_argument(
        "--compute-capability",
        action="append",
        type=_compute_capability,
        metavar="X.Y",
        help="a GPU to build for (TensorRT-RTX); again for another",
    )
    parser.add_argument("--timing-cache", metavar="FILE", help="measured timings, read and updated")
    for flag in _FLAGS:
        parser.add_argument(f"--{flag.replace('_', '-')}", action="store_true", default=None)


_FLAGS = ("version_compatible", "hardware_compatible", "refittable", "weight_streaming")


def _profile(text: str) -> dict[str, tuple[tuple[int, ...], ...]]:
    """``x=1x3:2x3:4x3,y=...`` to a profile; a name may hold any character but "," and the last "=" splits."""
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


def _run(arguments: argparse.Namespace) -> None:
    import trt_rt
    from trt_rt.compiler import write_atomically

    output: Path = arguments.output
    if output.is_dir() or not output.parent.is_dir():
        # Before the build, which may take minutes.
        raise CompileError(f"cannot write {str(output)!r}: it is a folder, or its folder does not exist.")
    options = _model_options(arguments.model) | _given_options(arguments)
    plan = trt_rt.build(options.pop("model"), **options)
    write_atomically(output, plan)
    kind = trt_rt.backend.identify_plan(plan)
    if arguments.json:
        print_json({"file": str(output), "bytes": len(plan), "kind": kind.description})
    else:
        print(f"{output}: {len(plan):,} bytes, {kind.description}")


def _given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said on the command line; the rest is left to trt_rt.build."""
    options = {
        "backend": arguments.backend,
        "precision": arguments.precision,
        "profiles": arguments.profile,
        "workspace_bytes": arguments.workspace_bytes,
        "optimization_level": arguments.optimization_level,
        "compute_capabilities": arguments.compute_capability,
        "timing_cache": arguments.timing_cache,
    }
    options |= {flag: getattr(arguments, flag) for flag in _FLAGS}
    return {name: value for name, value in options.items() if value is not None}


def _model_options(model: str) -> dict[str, Any]:
    if model.endswith(".onnx") or os.path.exists(model):
        path = Path(model)
        if not path.is_file():
            raise CompileError(f"there is no ONNX file {model!r}.")
        return {"model": path}
    made = _find_callable(model)()
    if isinstance(made, dict) and "model" in made:
        return dict(made)
    if isinstance(made, tuple) and len(made) in (2, 3):
        return dict(zip(("model", "arg_inputs", "dynamic_shapes"), made, strict=False))
    raise CompileError(
        f"{model} returned {type(made).__name__}: it must return (model, arg_inputs), (model, arg_inputs, "
        "dynamic_shapes), or a dict of arguments of trt_rt.build with a 'model'."
    )


def _find_callable(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise CompileError(f"there is no file {name!r}, and it is not module:callable either.")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks another
        raise CompileError(f"there is no Python module {module_name!r} (for {name!r}).") from error
    finally:
        sys.path.remove(os.getcwd())
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise CompileError(f"module {module_name!r} has no callable {attribute!r}.")
    return found  # type: ignore[no-any-return]
