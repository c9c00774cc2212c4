"""The way of requests from a front to the replicas: in batches, and again when a replica dies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from trt_rt.integrations.inference_protocol import RequestError, WireTensor
from trt_rt.integrations.ray_serve.batcher import Batcher, QueueFullError
from trt_rt.integrations.ray_serve.replica import Answer, ModelDescription
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
            Too many requests wait, or no replica is ready.
        """
        if model not in self._batchers:
            self._add_batchers(await self.describe())
        try:
            return await self._batchers[model].submit(inputs, _rows(inputs))
        except QueueFullError as error:
            raise RequestError(503, f"the server has too many requests: {error}") from None

    async def describe(self) -> dict[str, ModelDescription]:
        """Describe each model by its name.

        Raises
        ------
        RequestError
            No replica is ready.
        """
        try:
            found: dict[str, ModelDescription] = await self._replicas.describe.remote()
            return found
        except RayActorError:
            raise RequestError(503, "no replica is ready.") from None

    def _add_batchers(self, descriptions: Mapping[str, ModelDescription]) -> None:
        settings = self._settings
        for name, description in descriptions.items():
            joins = description.most_rows is not None
            self._batchers.setdefault(
                name,
                Batcher(
                    partial(self._run, name),
                    most_rows=description.most_rows or 1,
                    most_waiting=settings.max_queued_requests,
                    wait_s=settings.batch_wait_timeout_s if joins else 0,
                    slots=self._slots,
                ),
            )

    async def _run(self, model: str, requests: list[Inputs], attempt: int = 0) -> list[Answer]:
        try:
            answers: list[Answer] = await self._replicas.infer.remote(model, requests)
            return answers
        except RayActorError:
            if attempt == self._settings.max_retries:
                died = Answer({}, 503, "replicas died while they ran this request; try again later.")
                return [died] * len(requests)
            # Each alone: if one of them is what kills replicas, the others must not share its fate.
            alone = (self._run(model, [request], attempt + 1) for request in requests)
            return [answer for [answer] in await asyncio.gather(*alone)]


def _rows(inputs: Inputs) -> int:
    """Return the rows of a request; 1 where a replica will find that the request has none."""
    shape = next((wire.shape for wire in inputs.values()), ())
    return shape[0] if shape else 1
