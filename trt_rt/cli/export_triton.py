"""``trt-rt export-triton FILE -o REPOSITORY``: a saved program as a model of the Triton Inference Server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_rt.cli.command import Result, Subparsers, add_command, positive_integer

if TYPE_CHECKING:
    from trt_rt.integrations.triton import ModelFolder

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers, "export-triton", _run, "Write a saved program as a model of the Triton Inference Server."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what trt_rt.save wrote")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="REPOSITORY", help="is made if it does not exist"
    )
    parser.add_argument("--name", help="the model's name (default: the file's name without its suffix)")
    parser.add_argument("--model-version", type=positive_integer, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--instances",
        type=positive_integer,
        default=1,
        metavar="N",
        help="copies of the model on each GPU, or on the CPU (default: 1)",
    )
    parser.add_argument(
        "--no-batching",
        action="store_true",
        help="keep the server from joining requests, for models whose rows depend on each other",
    )
    parser.add_argument(
        "--max-batch-size",
        type=positive_integer,
        metavar="N",
        help="the most rows that the server joins (default: the most that the program takes)",
    )
    parser.add_argument(
        "--max-queue-delay-us",
        type=positive_integer,
        default=100,
        metavar="N",
        help="how long a request may wait for others, in microseconds (default: 100)",
    )
    parser.add_argument(
        "--layout",
        choices=("auto", "tensorrt", "python"),
        default="auto",
        help="which of Triton's backends is to run the model (default: tensorrt for one TensorRT engine)",
    )


def _run(arguments: argparse.Namespace) -> Result:
    from trt_rt.integrations.triton import export_triton

    model = export_triton(
        arguments.file,
        arguments.output,
        name=arguments.name,
        version=arguments.model_version,
        instances=arguments.instances,
        batching=not arguments.no_batching,
        max_batch_size=arguments.max_batch_size,
        max_queue_delay_us=arguments.max_queue_delay_us,
        layout=arguments.layout,
    )
    found: dict[str, Any] = {
        "folder": str(model.folder),
        "backend": model.config.backend,
        "max_batch_size": model.config.max_batch_size,
        "files": list(model.files),
    }
    return Result(found, lambda: _print(model))


def _print(model: ModelFolder) -> None:
    config = model.config
    batches = f"batches of up to {config.max_batch_size}" if config.max_batch_size else "no batching"
    print(f"{model.folder}: for Triton's {config.backend} backend, {batches}")
    for file in model.files:
        print(f"  {file}")
