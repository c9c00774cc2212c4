"""TensorRT's engine and runtime, which every user of one engine shares."""

from __future__ import annotations

import os
import weakref
from typing import Any

import torch

from trt_rt.backend import Backend, RuntimeSettings
from trt_rt.backend.kernel_caches import KernelCaches
from trt_rt.backend.runtime_settings import make_runtime_config
from trt_rt.engine.placement import current_device
from trt_rt.errors import ClosedError, ExecutionError

__all__ = ["EngineHandle"]


class EngineHandle:
    """A TensorRT engine and its runtime, shared by an `Engine` and its context factories.

    Parameters
    ----------
    backend : Backend
        The backend that loads the plan.
    plan : bytes-like
        A serialized engine. It is not needed after the constructor returns.
    device : torch.device
        The device of the engine, with its index.
    name : str
        The name in messages.
    engine_host_code_allowed : bool, optional
        Whether the plan may bring code that runs in this process.

    Raises
    ------
    PlanError
        The backend refuses the plan.
    BackendError
        TensorRT made no runtime.
    """

    def __init__(
        self,
        backend: Backend,
        plan: Any,
        device: torch.device,
        name: str,
        *,
        engine_host_code_allowed: bool = False,
    ) -> None:
        self.backend = backend
        self.device = device
        self.name = name
        self._process = os.getpid()
        with current_device(device):
            runtime = backend.runtime()
            if engine_host_code_allowed:
                runtime.engine_host_code_allowed = True
            engine = backend.deserialize(runtime, plan, name)
        # TensorRT wants an engine destroyed before its runtime: a list lets go of its last item first. It is
        # never changed, because other threads look at it while this is closed.
        self._held: list[Any] | None = [runtime, engine]
        self.kernel_caches = KernelCaches()
        # Also runs when the process exits. It must not refer to the handle, which would live until then.
        self._save_caches = weakref.finalize(self, self.kernel_caches.save_or_warn)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._held is None

    @property
    def engine(self) -> Any:
        """TensorRT's ``ICudaEngine``.

        Raises
        ------
        ClosedError
            If it was closed.
        ExecutionError
            If it is on a GPU, and was loaded before this process was forked.
        """
        return self._runtime_and_engine()[1]

    def _runtime_and_engine(self) -> list[Any]:
        if self.device.type == "cuda" and os.getpid() != self._process:
            raise ExecutionError(
                f"engine {self.name!r} was loaded before this process was forked, and CUDA cannot be used "
                "in a forked child. Start the process with the method 'spawn' or 'forkserver', and load the "
                "engine there."
            )
        held = self._held
        if held is None:
            raise ClosedError(f"engine {self.name!r} was closed; load it again to use it.")
        return held

    @property
    def streams_weights(self) -> bool:
        """Whether some weights are in host memory, and are copied to the device in every call.

        Raises
        ------
        ClosedError
            If it was closed.
        """
        engine = self.engine
        return bool(engine.weight_streaming_budget_v2 < engine.streamable_weights_size)

    def reload(self, plan: bytes) -> None:
        """Replace TensorRT's engine by one of `plan`, when there are no contexts of it.

        Raises
        ------
        ClosedError
            If it was closed.
        PlanError
            If the backend refuses the plan; then it is as it was.
        """
        runtime, before = self._runtime_and_engine()
        with current_device(self.device):
            engine = self.backend.deserialize(runtime, plan, self.name)
        if before.streamable_weights_size:
            engine.weight_streaming_budget_v2 = before.weight_streaming_budget_v2
        self._held = [runtime, engine]

    def runtime_config(self, settings: RuntimeSettings, *, for_capture: bool) -> Any:
        """Return an ``IRuntimeConfig`` with the settings, for one execution context.

        Parameters
        ----------
        settings : RuntimeSettings
            The user's settings.
        for_capture : bool
            Whether the context's runs are captured in a CUDA graph.

        Raises
        ------
        OSError
            The file of the kernel cache cannot be read or written.
        ClosedError
            The engine was closed.
        """
        return make_runtime_config(
            self.backend.api, self.engine, settings, self.kernel_caches, for_capture=for_capture
        )

    def close(self) -> None:
        """Save the kernel caches, and destroy engine and runtime unless others hold them. Idempotent."""
        self._save_caches()
        self.kernel_caches.clear()
        self._held = None
