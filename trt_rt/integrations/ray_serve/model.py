"""One program of a replica: its checks, its runs and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.archive import load
from trt_rt.errors import InputError, InputValueError, TRTError
from trt_rt.integrations.batch_runner import BatchRunner
from trt_rt.integrations.inference_protocol import WireTensor
from trt_rt.integrations.interface import ProgramInterface, SizeRange, TensorInterface, without_plan
from trt_rt.integrations.ray_serve.server_metrics import BatchMetrics
from trt_rt.integrations.ray_serve.settings import ServingSettings

__all__ = ["OVERLAPPING_BATCHES", "Answer", "Model", "ModelDescription"]

OVERLAPPING_BATCHES = 2
"""Batches that a replica has at once. On a GPU one is copied while the other runs; on a CPU one waits."""
_MOST_RUNS = 4096
"""Of one request. A few bytes can ask for rows without end, where a row has no elements."""
_LARGEST_JOINED = 64
"""The most rows that are joined for a program without a limit of its own."""


@dataclass(frozen=True)
class Answer:
    """What a replica returns for a request: outputs, or an error with its HTTP status.

    Errors are values here, so that the front can tell a request that was refused from a replica that died.

    Attributes
    ----------
    outputs : mapping of str to WireTensor
        By name; empty after an error.
    status : int
        200, or the HTTP status of the error.
    message : str
        What the error is.
    try_elsewhere : bool
        Whether another replica may have a better answer.
    """

    outputs: Mapping[str, WireTensor]
    status: int = 200
    message: str = ""
    try_elsewhere: bool = False


@dataclass(frozen=True)
class ModelDescription:
    """What a front must know of a model.

    Attributes
    ----------
    inputs, outputs : tuple of dict
        In the words of the inference protocol; -1 for a size that varies.
    most_rows : int or None
        Of a batch. None if requests cannot be joined.
    failure : str or None
        Why the model does not work in this replica; None if it works. The tensors of a model that has never
        worked are not known.
    """

    inputs: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()
    most_rows: int | None = None
    failure: str | None = None


class Model:
    """A program that is loaded and warmed up.

    Parameters
    ----------
    name : str
        The model id.
    path : str
        What `trt_rt.save` wrote.
    settings : ServingSettings
        How requests are joined.
    device : torch.device
        To run on.

    Raises
    ------
    TRTError
        The program cannot be loaded, or its first runs fail.
    OSError
        The file cannot be read.
    """

    def __init__(self, name: str, path: str, settings: ServingSettings, device: torch.device) -> None:
        self._program = load(path, device=device, public_key=settings.public_key)
        self._interface = ProgramInterface.of(self._program.exported(keep_plan=without_plan))
        self._runner = BatchRunner(self._program, self._interface, device)
        batch = self._interface.batch if settings.batching else None
        self._joins = batch is not None
        largest = settings.max_batch_size or (batch.max if batch is not None else None) or _LARGEST_JOINED
        self.description = ModelDescription(
            tuple(map(_described, self._interface.inputs)),
            tuple(map(_described, self._interface.outputs)),
            largest if self._joins else None,
        )
        sizes = self._interface.batch or SizeRange(1, 1)
        self._smallest = self._example(sizes.min)
        threads = OVERLAPPING_BATCHES if device.type == "cuda" else 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"trt_rt-{name}")
        try:
            self._warm_up({sizes.min, sizes.max or largest}, threads)
        except Exception:
            self._pool.shutdown()
            raise
        self._metrics = BatchMetrics(name)

    async def infer(self, requests: Sequence[Mapping[str, WireTensor]]) -> list[Answer]:
        """Run the requests of one batch. A request that is refused spoils no other."""
        answers: list[Answer | None] = []
        good = []
        for request in requests:
            try:
                tensors = {name: wire.tensor() for name, wire in request.items()}
                self._check(tensors)
            except InputError as error:
                answers.append(_as_answer(error))
            else:
                answers.append(None)
                good.append(tensors)
        results = iter(map(_as_answer, await self._run(good)) if good else ())
        return [next(results) if answer is None else answer for answer in answers]

    async def check_health(self) -> None:
        """Run the program once.

        Raises
        ------
        TRTError
            It fails.
        """
        await asyncio.get_running_loop().run_in_executor(self._pool, self._try, self._smallest)

    def _check(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._interface.check(tensors, batch=SizeRange(0, None) if self._joins else None)
        batch = self._interface.batch if self._joins else None
        if batch is None or batch.max is None:
            return
        rows, most = next(iter(tensors.values())).shape[0], _MOST_RUNS * batch.max
        if rows > most:
            raise InputValueError(
                f"the request has {rows} rows, and may have {most}: the program runs {batch.max} at a time. "
                "Send several requests."
            )

    async def _run(self, requests: list[dict[str, torch.Tensor]]) -> list[Any]:
        rows = sum(next(iter(each.values())).shape[0] for each in requests) if self._joins else len(requests)
        self._metrics.ran(rows, sum(module.stats()["captures"] for module in self._program.engines.values()))
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run_now, requests)

    def _warm_up(self, batches: set[int], threads: int) -> None:
        for rows in batches:
            # Twice on each thread: the first call sets up the context and graphs, the second one is ordinary.
            for running in [self._pool.submit(self._try, self._example(rows)) for _ in range(2 * threads)]:
                running.result()

    def _run_now(self, requests: list[dict[str, torch.Tensor]]) -> list[Any]:
        return self._runner.run(requests, join=self._joins)

    def _try(self, request: dict[str, torch.Tensor]) -> None:
        """Run the program once and raise what is wrong with it."""
        [result] = self._run_now([request])
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


def _as_answer(result: dict[str, torch.Tensor] | TRTError) -> Answer:
    if isinstance(result, InputError):
        return Answer({}, 400, str(result))
    if isinstance(result, TRTError):
        return Answer({}, 500, str(result))
    return Answer({name: WireTensor.of(tensor) for name, tensor in result.items()})


def _described(tensor: TensorInterface) -> dict[str, Any]:
    datatype = WireTensor.of(torch.empty(0, dtype=tensor.dtype)).datatype
    return {"name": tensor.name, "datatype": datatype, "shape": list(tensor.sizes)}
