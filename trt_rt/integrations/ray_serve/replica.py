"""A replica: the process that holds the programs, on one GPU or on the CPU, and runs batches of requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from ray import serve

from trt_rt.errors import TRTError
from trt_rt.integrations.inference_protocol import WireTensor
from trt_rt.integrations.ray_serve.model import Answer, Model, ModelDescription
from trt_rt.integrations.ray_serve.settings import ServingSettings

__all__ = ["Replica"]

_REFUSAL_S = 0.02
"""How long a request waits for its refusal. Routers prefer replicas with few requests, and one that refuses
at once would get nearly all."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
"""Between attempts to start a model that does not work."""
_ASK_S = 10.0


class Replica:
    """The deployment that `deployment` starts once for each GPU.

    It is ready when every program is loaded and has run at its smallest and largest batch, so no request
    waits for a first call.

    A program that fails at this start may be at fault itself, or the replica is. If it works in another
    replica, this one does not start, and Ray Serve tries again. Otherwise this replica starts with the other
    programs, refuses requests for this one, and tries at times to start it.
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

        Raises
        ------
        TRTError
            No model works, or one does not that works in another replica.
        """
        device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        self._starts: dict[str, Callable[[], Model]] = {
            name: partial(Model, name, path, settings, device) for name, path in models.items()
        }
        self._models: dict[str, Model] = {}
        self._failures: dict[str, str] = {}
        self._pause_s = _FIRST_PAUSE_S
        self._next_start = 0.0
        self._starting: asyncio.Task[None] | None = None
        for name, start in self._starts.items():
            try:
                self._models[name] = start()
            except Exception as error:  # an operator that runs in PyTorch may raise anything
                self._failures[name] = _sentence(error)
        if self._failures and (not self._models or _work_elsewhere(self._failures)):
            reasons = " ".join(f"The model {name!r} fails: {why}" for name, why in self._failures.items())
            raise TRTError(f"this replica cannot start. {reasons}")

    async def infer(self, model: str, requests: Sequence[Mapping[str, WireTensor]]) -> list[Answer]:
        """Run the requests of one batch."""
        if model in self._models:
            return await self._models[model].infer(requests)
        await asyncio.sleep(_REFUSAL_S)
        refusal = f"the model {model!r} does not work: {self._failures[model]}"
        return [Answer({}, 503, refusal, try_elsewhere=True)] * len(requests)

    async def describe(self) -> dict[str, ModelDescription]:
        """Describe each model by its name."""
        working = {name: model.description for name, model in self._models.items()}
        failing = {name: ModelDescription(failure=why) for name, why in self._failures.items()}
        return working | failing

    async def check_health(self) -> None:
        """Run every program once; Ray Serve replaces a replica for which this raises, or hangs.

        A model that has never worked in this replica does not make it unhealthy.

        Raises
        ------
        TRTError
            A model fails that has worked.
        """
        for name, model in list(self._models.items()):
            try:
                await model.check_health()
            except Exception as error:
                self._failures[name] = _sentence(error)
                raise
            self._failures.pop(name, None)
        is_starting = self._starting is not None and not self._starting.done()
        if self._failures and not is_starting and time.monotonic() >= self._next_start:
            # Not within the check: loading a large model may take longer than a check may.
            self._starting = asyncio.get_running_loop().create_task(self._start_failing())

    async def _start_failing(self) -> None:
        """Try once more to start the models that do not work."""
        for name in [name for name in self._starts if name not in self._models]:
            try:
                self._models[name] = await asyncio.get_running_loop().run_in_executor(
                    None, self._starts[name]
                )
            except Exception as error:
                self._failures[name] = _sentence(error)
            else:
                del self._failures[name]
                self._pause_s = _FIRST_PAUSE_S
        self._next_start = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, TRTError) else f"{type(error).__name__}: {error}"


def _work_elsewhere(models: Mapping[str, str]) -> bool:
    """Return whether one of these models works in another replica that runs."""
    here = serve.get_replica_context()
    application = serve.status().applications.get(here.app_name)
    deployment = application.deployments.get(here.deployment) if application is not None else None
    if deployment is None or not deployment.replica_states.get("RUNNING"):
        return False

    def ask() -> dict[str, ModelDescription]:
        replicas = serve.get_deployment_handle(here.deployment, here.app_name)
        found: dict[str, ModelDescription] = replicas.describe.remote().result(timeout_s=_ASK_S)
        return found

    with ThreadPoolExecutor(1) as pool:  # a handle does not wait on a thread that has an event loop
        try:
            found = pool.submit(ask).result()
        except Exception:  # it has died, or is as busy as if it were not there
            return False
    return any(found[name].failure is None for name in models)
