"""The load generator's processes, driven together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from hdrh.histogram import HdrHistogram
from load import DIGITS, HIGHEST, LOWEST

_LOAD = Path(__file__).with_name("load.py")


@dataclass
class Result:
    """What all processes saw together."""

    seconds: float
    asked: int
    right: int
    wrong: int
    repeated: int
    lost: int
    errors: list[str]
    longest_ms: float
    histogram: HdrHistogram

    def percentiles_ms(self, *percentiles: float) -> list[float]:
        return [self.histogram.get_value_at_percentile(each) / 1e3 for each in percentiles]


class LoadProcesses:
    """Processes of load.py; each has its share of the clients and of the requests."""

    def __init__(self, count: int, samples: Path, http_port: int, grpc_port: int, model: str) -> None:
        arguments = [str(samples), str(http_port), str(grpc_port), model]
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(_LOAD), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a load process did not start")

    def close(self) -> None:
        for process in self._processes:
            process.communicate()

    def run(self, command: dict[str, Any], progress: Callable[[int], None] | None = None) -> Result:
        """Run a command with its clients and requests shared; `progress` gets the number that is answered."""
        processes = self._processes[: max(1, min(len(self._processes), command["clients"]))]
        lines: SimpleQueue[tuple[int, str]] = SimpleQueue()
        for index, process in enumerate(processes):
            share = dict(command)
            for name in ("clients", "requests"):
                if name in command:
                    share[name] = _share(command[name], index, len(processes))
            assert process.stdin is not None
            process.stdin.write(json.dumps(share) + "\n")
            process.stdin.flush()
            Thread(target=_read, args=(index, process.stdout, lines), daemon=True).start()
        answered = [0] * len(processes)
        results = []
        while len(results) < len(processes):
            index, line = lines.get()
            if not line:
                raise RuntimeError("a load process ended")
            if line.startswith("progress"):
                answered[index] = int(line.split()[1])
                if progress is not None:
                    progress(sum(answered))
            else:
                results.append(json.loads(line))
        return _sum(results)


def _share(whole: int, index: int, count: int) -> int:
    return whole // count + (index < whole % count)


def _read(index: int, stream: Any, lines: SimpleQueue[tuple[int, str]]) -> None:
    while True:
        line = stream.readline()
        lines.put((index, line))
        if not line.startswith("progress"):
            return


def _sum(results: list[dict[str, Any]]) -> Result:
    histogram = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    for each in results:
        histogram.add(HdrHistogram.decode(each["histogram"]))
    totals = {
        name: sum(each[name] for each in results) for name in ("asked", "right", "wrong", "repeated", "lost")
    }
    return Result(
        seconds=max(each["seconds"] for each in results),
        errors=[text for each in results for text in each["errors"]],
        longest_ms=max(each["longest_us"] for each in results) / 1e3,
        histogram=histogram,
        **totals,
    )
