"""Measures how long each layer of a run takes, and reports it to a profiler."""

from __future__ import annotations

import sys
import time
from typing import Protocol

import torch

from trt_rt.reference.callbacks import IProfiler

__all__ = ["CpuTimer", "CudaTimer", "LayerTimer", "report"]


class LayerTimer(Protocol):
    """Measures the layers of one run."""

    def mark(self, layer: str) -> None:
        """Record that a layer has been enqueued. Its time is the time since the previous mark."""

    def milliseconds(self) -> list[tuple[str, float]]:
        """Return each layer and its time; on CUDA, wait until the run is over first."""


class CpuTimer:
    """Measures layers that are finished when their call returns."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._times: list[tuple[str, float]] = []

    def mark(self, layer: str) -> None:
        """Record that a layer is finished."""
        now = time.perf_counter()
        self._times.append((layer, (now - self._last) * 1e3))
        self._last = now

    def milliseconds(self) -> list[tuple[str, float]]:
        """Return each layer and its time."""
        return list(self._times)


class CudaTimer:
    """Measures layers with events on the current stream."""

    def __init__(self) -> None:
        self._layers: list[str] = []
        self._events = [self._event()]

    def mark(self, layer: str) -> None:
        """Record that a layer has been enqueued."""
        self._layers.append(layer)
        self._events.append(self._event())

    def milliseconds(self) -> list[tuple[str, float]]:
        """Wait until the run is over, and return each layer and its time."""
        self._events[-1].synchronize()
        spans = zip(self._events, self._events[1:], strict=False)
        return [
            (layer, start.elapsed_time(end)) for layer, (start, end) in zip(self._layers, spans, strict=True)
        ]

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def report(timer: LayerTimer, profiler: IProfiler) -> None:
    """Report the layers of a run to a profiler.

    An exception of the profiler is printed and ends the report. TensorRT calls profilers from C++, which no
    exception may cross; it prints and continues too.
    """
    try:
        for layer, milliseconds in timer.milliseconds():
            profiler.report_layer_time(layer, milliseconds)
    except Exception as error:
        print(f"[ERROR] Exception caught in report_layer_time(): {error}", file=sys.stderr)  # noqa: T201
