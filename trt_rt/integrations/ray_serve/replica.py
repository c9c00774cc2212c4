"""A replica: the process that holds the programs, on one GPU or on the CPU, and runs batches of requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from ray import serve
from ray.serve import metrics

from trt_rt.archive import load
from trt_rt.errors import InputError, TRTError
from trt_rt.integrations.batch_runner import BatchRunner
from trt_rt.integrations.inference_protocol import WireTensor
from trt_rt.integrations.interface import ProgramInterface, SizeRange, TensorInterface, without_plan
from trt_rt.integrations.ray_serve.settings import ServingSettings

__all__ = ["Answer", "Replica"]

_LARGEST_JOINED = 64
"""The most rows that are joined for a program without a limit of its own."""
_OVERLAPPING = 2
"""Batches under way at once: one is copied while the other runs."""
_MILLISECONDS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Answer:
    """What a replica returns: outputs, or an error with its HTTP status.

    Errors are values here, so that the front can tell a request that was refused from a replica that died.
    """

    outputs: Mapping[str, WireTensor]
    status: int = 200
    message: str = ""


class Replica:
    """The deployment that `deployment` starts once for each GPU.

    It is ready when every program is loaded and has run at its smallest and largest batch, so no request
    waits for a first call.
    """

    def __init__(self, models: Mapping[str, str], settings: ServingSettings, *, on_gpu: bool) -> None:
        """Load and warm up.

        Parameters
        ----------
        models : mapping
            Paths of files of `trt_rt.save`, by model id.
        settings : ServingSettings
            For every model.
        on_gpu : bool
            Whether Ray has given this replica a GPU, which is then the only one that it sees.
        """
        device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        self._models = {name: _Model(name, path, settings, device) for name, path in models.items()}

    async def infer(self, model: str, inputs: Mapping[str, WireTensor]) -> Answer:
        """Run one request, in a batch with others."""
        return await self._models[model].infer(inputs)

    async def describe(self) -> dict[str, dict[str, Any]]:
        """Return the inputs and outputs of each model, as the inference protocol describes them."""
        return {name: model.description for name, model in self._models.items()}

    async def check_health(self) -> None:
        """Run every program once; Ray Serve replaces a replica for which this raises, or hangs."""
        for model in self._models.values():
            await model.check_health()


class _Model:
    """One program of a replica: its batches, its checks and its metrics."""

    def __init__(self, name: str, path: str, settings: ServingSettings, device: torch.device) -> None:
        self._program = load(path, device=device, public_key=settings.public_key)
        self._interface = ProgramInterface.of(self._program.exported(keep_plan=without_plan))
        self._runner = BatchRunner(self._program, self._interface, device)
        self._pool = ThreadPoolExecutor(_OVERLAPPING, thread_name_prefix=f"trt_rt-{name}")
        batch = self._interface.batch if settings.batching else None
        self._joins = batch is not None
        largest = settings.max_batch_size or (batch.max if batch is not None else None) or _LARGEST_JOINED
        self._run_batch: Callable[[Mapping[str, torch.Tensor]], Any] = serve.batch(
            max_batch_size=largest,
            batch_wait_timeout_s=settings.batch_wait_timeout_s if self._joins else 0,
            max_concurrent_batches=_OVERLAPPING,
            # Rows are what fills a batch. A request larger than the largest batch runs alone, in pieces.
            batch_size_fn=lambda requests: self._rows(requests, largest),
        )(self._run_together)
        self._metrics = _Metrics(name)
        sizes = self._interface.batch or SizeRange(1, 1)
        self._smallest = self._example(sizes.min)
        for rows in {sizes.min, sizes.max or largest}:
            # Twice on each thread: the first call sets up the context and graphs, the second one is ordinary.
            for running in [self._pool.submit(self._warm_up, rows) for _ in range(2 * _OVERLAPPING)]:
                running.result()

    @property
    def description(self) -> dict[str, Any]:
        """The inputs and outputs, in the words of the inference protocol; -1 for a size that varies."""
        return {
            "inputs": list(map(_described, self._interface.inputs)),
            "outputs": list(map(_described, self._interface.outputs)),
        }

    async def infer(self, inputs: Mapping[str, WireTensor]) -> Answer:
        began = time.perf_counter()
        try:
            tensors = {name: wire.tensor() for name, wire in inputs.items()}
            self._interface.check(tensors, batch=SizeRange(0, None) if self._joins else None)
            result = await self._run_batch(tensors)
        except InputError as error:
            return self._refused(400, error)
        if isinstance(result, InputError):
            return self._refused(400, result)
        if isinstance(result, TRTError):
            return self._refused(500, result)
        self._metrics.answered((time.perf_counter() - began) * 1e3)
        return Answer({name: WireTensor.of(tensor) for name, tensor in result.items()})

    async def check_health(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, self._warm_up, None)

    async def _run_together(self, requests: list[dict[str, torch.Tensor]]) -> list[Any]:
        self._metrics.batch(self._rows(requests), self._captures())
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run_now, requests)

    def _run_now(self, requests: list[dict[str, torch.Tensor]]) -> list[Any]:
        return self._runner.run(requests, join=self._joins)

    def _rows(self, requests: list[dict[str, torch.Tensor]], largest: int | None = None) -> int:
        if not self._joins:
            return len(requests)
        rows = sum(next(iter(request.values())).shape[0] for request in requests)
        return min(rows, largest) if largest is not None and len(requests) == 1 else rows

    def _captures(self) -> int:
        return sum(module.stats()["captures"] for module in self._program.engines.values())

    def _warm_up(self, rows: int | None) -> None:
        """Run the program once and raise what is wrong with it."""
        [result] = self._run_now([self._smallest if rows is None else self._example(rows)])
        if isinstance(result, TRTError):
            raise result

    def _example(self, rows: int) -> dict[str, torch.Tensor]:
        """Return inputs of zeros: values that are valid for indices, masks and numbers alike."""
        example = {}
        for each in self._interface.inputs:
            shape = [limits.min if limits is not None else 1 for limits in each.shape]
            if self._interface.batch is not None:
                shape[0] = rows
            example[each.name] = torch.zeros(shape, dtype=each.dtype)
        return example

    def _refused(self, status: int, error: TRTError) -> Answer:
        self._metrics.refused(status)
        return Answer({}, status, str(error))


class _Metrics:
    """What Ray exports for Prometheus, for one model of this replica."""

    def __init__(self, model: str) -> None:
        self._calls = metrics.Counter("trt_rt_calls", "Requests that were answered.", ("model",))
        self._errors = metrics.Counter("trt_rt_errors", "Requests that were refused.", ("model", "status"))
        self._latency = metrics.Histogram(
            "trt_rt_latency_ms", "Time in the replica, in milliseconds.", list(_MILLISECONDS), ("model",)
        )
        self._batches = metrics.Histogram("trt_rt_batch_rows", "Rows of a batch.", list(_ROWS), ("model",))
        self._captures = metrics.Gauge("trt_rt_captures", "CUDA graphs that were captured.", ("model",))
        for metric in (self._calls, self._errors, self._latency, self._batches, self._captures):
            metric.set_default_tags({"model": model})

    def answered(self, milliseconds: float) -> None:
        self._calls.inc()
        self._latency.observe(milliseconds)

    def refused(self, status: int) -> None:
        self._errors.inc(tags={"status": str(status)})

    def batch(self, rows: int, captures: int) -> None:
        self._batches.observe(rows)
        self._captures.set(captures)


def _described(tensor: TensorInterface) -> dict[str, Any]:
    datatype = WireTensor.of(torch.empty(0, dtype=tensor.dtype)).datatype
    return {"name": tensor.name, "datatype": datatype, "shape": list(tensor.sizes)}
