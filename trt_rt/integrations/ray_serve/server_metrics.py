"""What the server exports for Prometheus, through Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.serve import metrics

from trt_rt.integrations.inference_protocol import RequestError

__all__ = ["BatchMetrics", "RequestMetrics"]

_MILLISECONDS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class RequestMetrics:
    """The requests of one model, as a front sees them."""

    def __init__(self, model: str) -> None:
        self._calls = metrics.Counter("trt_rt_calls", "Requests that were answered.", ("model",))
        self._errors = metrics.Counter("trt_rt_errors", "Requests that were refused.", ("model", "status"))
        self._latency = metrics.Histogram(
            "trt_rt_latency_ms", "Time in the server, in milliseconds.", list(_MILLISECONDS), ("model",)
        )
        for metric in (self._calls, self._errors, self._latency):
            metric.set_default_tags({"model": model})  # a dict of its own: Ray Serve adds to it

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count and time the request that is answered within."""
        began = time.perf_counter()
        try:
            yield
        except RequestError as error:
            self._errors.inc(tags={"status": str(error.status)})
            raise
        self._calls.inc()
        self._latency.observe((time.perf_counter() - began) * 1e3)


class BatchMetrics:
    """The batches of one model, as a replica sees them."""

    def __init__(self, model: str) -> None:
        self._batches = metrics.Histogram("trt_rt_batch_rows", "Rows of a batch.", list(_ROWS), ("model",))
        self._captures = metrics.Gauge("trt_rt_captures", "CUDA graphs that were captured.", ("model",))
        for metric in (self._batches, self._captures):
            metric.set_default_tags({"model": model})  # a dict of its own: Ray Serve adds to it

    def ran(self, rows: int, captures: int) -> None:
        """Count a batch; `captures` is the number of all captures so far."""
        self._batches.observe(rows)
        self._captures.set(captures)
