"""Many requests, while replicas are killed."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any


def endure(server: Any, load: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Send the requests over each protocol in turn; the kills go on over all of them."""
    found = []
    share = -(-options.requests // len(options.protocols))
    for protocol in options.protocols:
        killer = _Killer(server, options.kill_every)
        began = time.perf_counter()
        result = load.run(
            {"protocol": protocol, "clients": options.clients[-1], "requests": share}, killer.progress
        )
        seconds = time.perf_counter() - began
        p50, p99, p999 = result.percentiles_ms(50, 99, 99.9)
        report = {
            "protocol": protocol,
            "requests": result.right + result.wrong + result.repeated + result.lost,
            "right": result.right,
            "wrong": result.wrong,
            "repeated": result.repeated,
            "lost": result.lost,
            "failures": result.wrong + result.repeated + result.lost + (share != result.right),
            "killed": killer.killed,
            "requests_per_second": round(result.right / seconds, 1),
            "p50_ms": p50,
            "p99_ms": p99,
            "p99.9_ms": p999,
            "longest_ms": result.longest_ms,
            "errors": result.errors,
        }
        print(report, flush=True)
        found.append(report)
    return found


class _Killer:
    """Kills a replica whenever another `every` requests have been answered."""

    def __init__(self, server: Any, every: int | None) -> None:
        self._server = server
        self._every = every
        self.killed = 0

    def progress(self, answered: int) -> None:
        if self._every and answered >= self._every * (self.killed + 1):
            self.killed += self._server.kill_a_replica()
            print(f"{answered} answered, {self.killed} replicas killed", file=sys.stderr, flush=True)
