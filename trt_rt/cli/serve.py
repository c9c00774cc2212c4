"""``trt-rt serve FILE...``: answers requests with saved programs, on this machine."""

from __future__ import annotations

import argparse
import queue
import signal
from pathlib import Path

from trt_rt.cli.command import Result, Subparsers, add_command, positive_integer
from trt_rt.errors import SettingError

__all__ = ["add"]


def add(subparsers: Subparsers) -> None:
    """Add the command's parser."""
    parser = add_command(
        subparsers, "serve", _run, "Answer requests with saved programs, until Ctrl-C or SIGTERM."
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="what trt_rt.save wrote; NAME=FILE gives a model another name than the file's",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=positive_integer, default=8000, help="for HTTP (default: %(default)s)")
    parser.add_argument("--grpc-port", type=positive_integer, help="for gRPC (default: no gRPC)")
    parser.add_argument(
        "--metrics-port", type=positive_integer, help="for Prometheus (default: one that is free)"
    )
    parser.add_argument(
        "--no-batching",
        action="store_true",
        help="keep requests apart, for models whose rows depend on each other",
    )
    parser.add_argument(
        "--replicas", type=positive_integer, help="default: one for each GPU, or one on the CPU"
    )
    parser.add_argument(
        "--max-batch-size", type=positive_integer, help="default: the largest that a program takes"
    )
    parser.add_argument(
        "--batch-wait-ms",
        type=float,
        default=2.0,
        help="how long a request waits for others (default: %(default)s)",
    )


def _run(arguments: argparse.Namespace) -> Result:
    from trt_rt.integrations.ray_serve import deployment, run_server, stop_server

    models: dict[str, Path] = {}
    for text in arguments.files:
        name, separator, file = text.rpartition("=")
        path = Path(file)
        name = name if separator else path.stem
        if name in models:
            raise SettingError(f"two files have the name {name!r}: give one of them another, as NAME=FILE.")
        models[name] = path
    application = deployment(
        models,
        num_replicas=arguments.replicas,
        batching=not arguments.no_batching,
        max_batch_size=arguments.max_batch_size,
        batch_wait_timeout_s=arguments.batch_wait_ms / 1e3,
    )
    run_server(
        application,
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
    )
    # No threading.Event: its set() waits forever in a handler that interrupts its wait() at the wrong place.
    stop: queue.SimpleQueue[int] = queue.SimpleQueue()
    # In place of Ray's handler, which ends the process three seconds later, whatever it does.
    signal.signal(signal.SIGTERM, lambda number, _: stop.put(number))
    urls = [f"http://{arguments.host}:{arguments.port}/v2/models/{name}/infer" for name in models]
    print("\n".join(["ready:", *urls]), flush=True)
    try:
        stop.get()
    finally:
        stop_server()
    return Result(urls, lambda: None)
