"""``trt-rt compile MODEL``: how a model is divided into engines and PyTorch operators."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trt_rt.cli.command import Result, Subparsers, add_command, positive_integer, print_table
from trt_rt.cli.input_shapes import WrittenInput, as_example_inputs, as_profile, written_input
from trt_rt.cli.model_source import is_same_file, model_options, refuse_exit
from trt_rt.cli.streams import printable
from trt_rt.errors import ArchiveError, CompileError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from trt_rt.compiled import Partition

__all__ = ["add"]

_DESCRIPTION = """\
Prints which operators of a model run in engines, which in PyTorch, and why. The compiled program is kept in
the cache, where trt_rt.compile finds it, and in the file of -o; with --dryrun nothing is built.

MODEL is a file that torch.export.save has written (.pt2), a TorchScript file (.ts), or module:callable. A
.pt2 file is read with the checks of trt_rt.load: no code in it runs, and it may call PyTorch's own operators
and those of --operators. With --trust, torch.export.load reads it, which may run code of the file, and which
keeps the lines of the model and its example inputs. The callable takes no arguments and returns the arguments
of trt_rt.compile in one of these forms:

  (model, inputs)                  a module and a tuple of example inputs
  (model, inputs, dynamic_shapes)  and its dynamic shapes, as torch.export.export takes them
  a dict                           arguments of trt_rt.compile by name, "model" among them
  a module                         whose inputs --inputs describes

The module is looked for in the current folder too. An option of this command overrides the dict.

--inputs describes each input as [NAME=]SHAPE[:SHAPE:SHAPE][@DTYPE]: one shape, or the smallest, the most
usual and the largest; float32 without a dtype. Inputs without a name are positional. An exported program has
inputs of its own; for it, --inputs says for which of its sizes the engines are tuned.

  trt-rt compile model.ts --inputs 1x3x224x224:8x3x224x224:32x3x224x224
  trt-rt compile models:bert --inputs input_ids=1x16:4x128:8x512@int64 attention_mask=1x16:4x128:8x512@int64
"""


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    summary = "Divide a model into engines and PyTorch operators, and build the engines."
    parser = add_command(subparsers, "compile", _run, summary)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{parser.description}\n\n{_DESCRIPTION}"
    parser.add_argument("model", metavar="MODEL", help="a .pt2 or .ts file, or module:callable")
    parser.add_argument(
        "--inputs",
        nargs="+",
        type=written_input,
        metavar="INPUT",
        help="the model's inputs, such as 1x3x224x224, x=1x3:8x3:32x3 or tokens=1x16@int64",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where the program is saved (.pt2), for trt_rt.load and torch.export.load",
    )
    parser.add_argument("--dryrun", action="store_true", default=None, help="stop before anything is built")
    parser.add_argument("--backend", help="whose engines run the program (default: the best for the device)")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16", "strong"])
    parser.add_argument(
        "--min-block-size",
        type=positive_integer,
        metavar="N",
        help="a part with fewer operators stays in PyTorch",
    )
    parser.add_argument(
        "--torch-executed-ops",
        action="append",
        metavar="NAME",
        help="an operator that PyTorch is to run, such as aten.relu; again for another",
    )
    parser.add_argument(
        "--torch-executed-modules",
        action="append",
        metavar="NAME",
        help="a submodule that PyTorch is to run; again for another",
    )
    parser.add_argument(
        "--operators",
        action="append",
        metavar="NAME",
        help="an operator outside of PyTorch that a .pt2 file may call, such as torchvision::nms; again for "
        "another",
    )
    parser.add_argument(
        "--trust", action="store_true", help="read a .pt2 file with torch.export.load, which may run its code"
    )
    parser.add_argument("--require-full-compilation", action="store_true", default=None)
    parser.add_argument("--check", choices=["eager", "warn"], help="compare with eager PyTorch")
    parser.add_argument("--cache-dir", metavar="FOLDER", help="where the program is kept")


_OPTIONS = (
    "dryrun",
    "backend",
    "precision",
    "min_block_size",
    "torch_executed_ops",
    "torch_executed_modules",
    "require_full_compilation",
    "check",
    "cache_dir",
)


def _run(arguments: argparse.Namespace) -> Result:
    import trt_rt
    from trt_rt.compiled import Partition
    from trt_rt.compiler import check_writable

    # The model's code may change the current folder.
    output = arguments.output and os.path.abspath(arguments.output)
    if output:
        if arguments.dryrun:
            raise CompileError("--dryrun builds nothing, so there is nothing to write: leave out --output.")
        if is_same_file(arguments.model, output):
            raise CompileError(f"{output!r} is the model, and the program would replace it.")
        check_writable(output)
    given = {name: getattr(arguments, name) for name in _OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    with refuse_exit(arguments.model):
        options = _model_options(arguments) | options
        made = trt_rt.compile(options.pop("model"), **options)
    if output:
        trt_rt.save(made, output)
    partition = made if isinstance(made, Partition) else made.partition
    return Result(_as_json(partition), lambda: _print(partition))


def _model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    model: str = arguments.model
    inputs: list[WrittenInput] | None = arguments.inputs
    if model.endswith(".pt2"):
        program = _exported_program(model, arguments.operators or (), trust=arguments.trust)
        return {"model": program} | ({"profiles": [as_profile(inputs, program)]} if inputs else {})
    if model.endswith(".ts"):
        if not inputs:
            raise CompileError(
                f"{model!r} is a TorchScript module, which does not tell its inputs: give --inputs, such as "
                "--inputs 1x3x224x224"
            )
        return {"model": _script_module(model), **as_example_inputs(inputs)}
    options = model_options(model, needs_inputs=False)
    if not inputs and set(options) == {"model"} and isinstance(options["model"], torch.nn.Module):
        raise CompileError(
            f"{model!r} returns a model without inputs: give --inputs, such as --inputs 1x3x224x224, or "
            "return a dict of arguments of trt_rt.compile that has 'model' and 'inputs'"
        )
    if inputs:
        own = ("inputs", "arg_inputs", "kwarg_inputs", "dynamic_shapes", "profiles")
        options = {name: value for name, value in options.items() if name not in own}
        options |= as_example_inputs(inputs)
    return options


def _exported_program(path: str, operators: Iterable[str], *, trust: bool) -> ExportedProgram:
    import torch

    from trt_rt.archive.exported_loading import load_exported

    try:
        if not trust:
            return load_exported(path, operators=operators)
        return torch.export.load(path)
    except ArchiveError as error:
        raise CompileError(
            f"{path!r} is no exported program that can be read: {error} If you trust the file, --trust reads "
            "it with torch.export.load."
        ) from error
    except Exception as error:  # whatever PyTorch's reader meets in the file
        raise CompileError(f"{path!r} is no exported program that can be read: {error}") from error


def _script_module(path: str) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript's age; whoever has such a file knows
        try:
            return torch.jit.load(path)
        except Exception as error:  # whatever PyTorch's reader meets in the file
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CompileError(f"{path!r} is no TorchScript module that can be read: {reason}") from error


def _as_json(partition: Partition) -> dict[str, Any]:
    from trt_rt.compiled import EnginePart

    return {
        "backend": partition.backend,
        "engines": len(partition.engines),
        "steps": [
            step.to_json()
            if isinstance(step, EnginePart)
            else {
                "operator": step.operator,
                "reason": step.reason,
                "source": step.source,
                "splits": step.splits,
            }
            for step in partition.steps
        ],
    }


def _print(partition: Partition) -> None:
    print(printable(partition.summary()))
    print_table("Partition", ("runs", "operators", "tensors, or the reason"), partition.rows())
