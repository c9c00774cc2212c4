"""Measure a server of trt_rt.integrations.ray_serve under load: python bench/serving [OPTIONS].

Starts Ray Serve on this machine with a program over the reference backend, and sends it requests from
processes of their own, over HTTP (raw bytes) and gRPC, from more and more clients. Every answer's values are
compared. The batches a second are compared with a bare loop: a process that does nothing but call the
program, on one thread, with batches of the same size. `--requests N --kill-every M` instead sends N requests
and kills a replica's process after every M.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

_HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}
_SAMPLES = 64


@dataclass
class Row:
    """One line of the table."""

    replicas: int
    protocol: str
    clients: int
    requests: float
    rows: float
    batch_rows: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    wrong: int
    lost: int
    share: float | None = None
    scaling: float | None = None

    def cells(self) -> list[str]:
        share = "-" if self.share is None else f"{self.share:.0%}"
        scaling = "-" if self.scaling is None else f"{self.scaling:.2f}"
        numbers = [f"{each:.1f}" for each in (self.p50_ms, self.p99_ms, self.p999_ms)]
        failures = str(self.wrong + self.lost)
        first = [str(self.replicas), self.protocol, str(self.clients)]
        rates = [f"{self.requests:.0f}", f"{self.rows:.0f}", f"{self.batch_rows:.1f}"]
        return [*first, *rates, *numbers, failures, share, scaling]


_HEADINGS = (
    "replicas",
    "protocol",
    "clients",
    "requests/s",
    "rows/s",
    "rows of a batch",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "failures",
    "of a bare loop",
    "of one replica",
)


def main() -> int:
    options = _options()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    if options.proxy == "haproxy":
        os.environ |= _HAPROXY  # before anything imports Ray Serve
    device = torch.device(options.device)
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        file = options.program or _written_program(folder, options, device)
        found = _measured(file, folder, options, device, cleanup)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["failures"] == 0 else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/serving", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: a GPU for each replica")
    parser.add_argument("--program", type=Path, help="a saved program to serve, instead of a perceptron")
    parser.add_argument("--width", type=int, default=1024, help="of the perceptron's layers")
    parser.add_argument("--layers", type=int, default=6, help="of the perceptron")
    parser.add_argument("--most-rows", type=int, default=32, help="of a batch")
    parser.add_argument("--request-rows", type=int, default=8, help="of each request")
    parser.add_argument("--replicas", type=_numbers, default=[1, 2], metavar="N,N")
    parser.add_argument("--protocols", type=_names, default=["http", "grpc"], metavar="http,grpc")
    parser.add_argument(
        "--clients", type=_numbers, default=[1, 4, 8, 16, 32], metavar="N,N", help="for one replica"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of each line, after a warm-up of a second"
    )
    parser.add_argument("--latency-limit-ms", type=float, default=200.0, help="that p99 must keep")
    parser.add_argument("--load-processes", type=int, default=1)
    parser.add_argument("--fronts", type=int, default=1)
    parser.add_argument("--proxy", choices=["python", "haproxy"], default="python", help="of Ray Serve")
    parser.add_argument("--pin", action="store_true", help="bind each replica to two cores of its own")
    parser.add_argument(
        "--requests", type=int, help="endurance: send so many, at the largest number of clients"
    )
    parser.add_argument("--kill-every", type=int, help="endurance: kill a replica after so many requests")
    parser.add_argument("--json", type=Path, help="a file for the results")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    return text.split(",")


def _written_program(folder: Path, options: argparse.Namespace, device: torch.device) -> Path:
    from program import write_program

    file = folder / "model.pt2"
    write_program(
        file, width=options.width, layers=options.layers, most_rows=options.most_rows, device=device
    )
    return file


def _measured(
    file: Path, folder: Path, options: argparse.Namespace, device: torch.device, cleanup: contextlib.ExitStack
) -> dict[str, Any]:
    from load_processes import LoadProcesses
    from program import write_samples
    from server import Server

    from tests.integrations.ports import free_ports

    samples = folder / "samples.npz"
    write_samples(file, samples, rows=options.request_rows, count=_SAMPLES, device=device)
    ports = free_ports(3)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    server = cleanup.enter_context(contextlib.closing(Server(*ports, gpus)))
    load = cleanup.enter_context(
        contextlib.closing(LoadProcesses(options.load_processes, samples, *ports[:2], "model"))
    )
    settings = {"num_gpus": 1 if device.type == "cuda" else 0, "num_fronts": options.fronts}
    found: dict[str, Any] = {"machine": _machine(device), "options": _plain(vars(options))}
    print(json.dumps(found["machine"]), flush=True)
    if options.requests:
        from endurance import endure

        server.deploy(file, options.replicas[-1], **settings)
        found["endurance"] = endure(server, load, options)
        found["failures"] = sum(each["failures"] for each in found["endurance"])
        return found
    rows = _table(file, server, load, options, device, settings)
    found["rows"] = [asdict(row) for row in rows]
    found["failures"] = sum(row.wrong + row.lost for row in rows)
    return found


def _table(
    file: Path,
    server: Any,
    load: Any,
    options: argparse.Namespace,
    device: torch.device,
    settings: dict[str, Any],
) -> list[Row]:
    from program import bare_loop

    rows: list[Row] = []
    best: dict[str, Row] = {}
    for replicas in options.replicas:
        server.deploy(file, replicas, **settings)
        core = server.pin() if options.pin else None
        for protocol in options.protocols:
            level = []
            for clients in options.clients:
                row = _line(server, load, options, protocol, replicas, clients * replicas)
                rows.append(row)
                level.append(row)
                print(row, file=sys.stderr, flush=True)
                if row.p99_ms > options.latency_limit_ms:
                    break
            within = [row for row in level if row.p99_ms <= options.latency_limit_ms] or level[:1]
            at_limit = max(within, key=lambda row: row.requests)
            bare = bare_loop(file, device, at_limit.batch_rows, options.seconds, core)
            at_limit.share = at_limit.rows / at_limit.batch_rows / bare / replicas
            one = best.setdefault(protocol, at_limit)
            at_limit.scaling = at_limit.requests / one.requests if one.replicas != replicas else None
            print(f"bare loop: {bare:.1f} batches/s of {at_limit.batch_rows:.1f} rows", flush=True)
    print("| " + " | ".join(_HEADINGS) + " |\n|" + " --- |" * len(_HEADINGS))
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |", flush=True)
    return rows


def _line(
    server: Any, load: Any, options: argparse.Namespace, protocol: str, replicas: int, clients: int
) -> Row:
    before = server.batches()
    result = load.run({"protocol": protocol, "clients": clients, "seconds": options.seconds, "warm_up": 1.0})
    batches = server.batches() - before
    requests = result.right / result.seconds
    return Row(
        replicas,
        protocol,
        clients,
        requests,
        requests * options.request_rows,
        result.asked * options.request_rows / max(batches, 1),
        *result.percentiles_ms(50, 99, 99.9),
        wrong=result.wrong + result.repeated,
        lost=result.lost,
    )


def _machine(device: torch.device) -> dict[str, Any]:
    import ray

    from trt_rt._core.processor_name import processor_name

    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "ray": ray.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}


if __name__ == "__main__":
    sys.exit(main())
