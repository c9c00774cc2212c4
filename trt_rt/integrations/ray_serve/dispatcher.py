"""The way of requests from a front to the replicas: in batches, and again when a replica dies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from trt_rt.integrations.inference_protocol import RequestError, WireTensor
from trt_rt.integrations.ray_serve.batcher import Batcher, QueueFullError
from trt_rt.integrations.ray_serve.model import Answer, ModelDescription
from trt_rt.integrations.ray_serve.settings import ServingSettings

__all__ = ["Dispatcher"]

Inputs = Mapping[str, WireTensor]


class Dispatcher:
    """Joins the requests of each model into batches, and gives each batch to a replica.

    A call to a replica costs as much as a small engine, so requests share it.

    Parameters
    ----------
    replicas : DeploymentHandle
        Of `Replica`.
    settings : ServingSettings
        How batches are formed, and how often they are tried again.
    slots : int
        Batches of each model that this front has at the replicas at once.
    """

    def __init__(self, replicas: DeploymentHandle, settings: ServingSettings, slots: int) -> None:
        self._replicas = replicas
        self._settings = settings
        self._slots = slots
        self._batchers: dict[str, Batcher[Inputs, Answer]] = {}

    async def infer(self, model: str, inputs: Inputs) -> Answer:
        """Return the answer to one request, which may be an error.

        Raises
        ------
        RequestError
            Too many requests wait, no replica is ready, or the model works in none.
        """
        if model not in self._batchers:
            self._add_batcher(model, await self.describe(model))
        try:
            return await self._batchers[model].submit(inputs, _rows(inputs))
        except QueueFullError as error:
            raise RequestError(503, f"the server has too many requests: {error}") from None

    async def check_ready(self) -> None:
        """Check that a replica answers.

        Raises
        ------
        RequestError
            None does.
        """
        await self._descriptions()

    async def describe(self, model: str) -> ModelDescription:
        """Describe a model.

        Raises
        ------
        RequestError
            No replica is ready, or the model works in none.
        """
        for _ in range(self._settings.max_retries + 1):
            found = (await self._descriptions())[model]
            if found.failure is None:
                return found
        raise RequestError(503, f"the model {model!r} does not work: {found.failure}")

    async def _descriptions(self) -> dict[str, ModelDescription]:
        """Return what one of the replicas says of each model."""
        try:
            found: dict[str, ModelDescription] = await self._replicas.describe.remote()
            return found
        except RayActorError:
            raise RequestError(503, "no replica is ready.") from None

    def _add_batcher(self, model: str, description: ModelDescription) -> None:
        settings = self._settings
        joins = description.most_rows is not None
        self._batchers.setdefault(
            model,
            Batcher(
                partial(self._run, model),
                most_rows=description.most_rows or 1,
                most_waiting=settings.max_queued_requests,
                wait_s=settings.batch_wait_timeout_s if joins else 0,
                slots=self._slots,
            ),
        )

    async def _run(self, model: str, requests: list[Inputs], attempt: int = 0) -> list[Answer]:
        try:
            answers: list[Answer] = await self._replicas.infer.remote(model, requests)
        except RayActorError:
            if attempt == self._settings.max_retries:
                died = Answer({}, 503, "replicas died while they ran this request; try again later.")
                return [died] * len(requests)
            # Each alone: if one of them is what kills replicas, the others must not share its fate.
            alone = (self._run(model, [request], attempt + 1) for request in requests)
            return [answer for [answer] in await asyncio.gather(*alone)]
        if answers[0].try_elsewhere and attempt < self._settings.max_retries:
            return await self._run(model, requests, attempt + 1)
        return answers


def _rows(inputs: Inputs) -> int:
    """Return the rows of a request; 1 where a replica will find that the request has none."""
    shape = next((wire.shape for wire in inputs.values()), ())
    return shape[0] if shape else 1
