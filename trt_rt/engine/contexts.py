"""The making of an engine's execution contexts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt._core.critical import Cell
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.backend import RuntimeSettings
from trt_rt.engine.handle import EngineHandle
from trt_rt.engine.placement import current_device
from trt_rt.engine.workspaces import shared_workspace

__all__ = ["ContextFactory", "ContextSettings", "warn_of_streaming"]


@dataclass(frozen=True)
class ContextSettings:
    """Settings of the execution contexts that a `ContextFactory` makes.

    Attributes
    ----------
    shared_workspace : bool
        Whether scratch memory is sized for the shapes in use and shared by the contexts of one stream.
    profiler : object or None
        TensorRT's ``IProfiler`` that is told the time of every layer. Contexts of CUDA graphs have none.
    runtime : RuntimeSettings or None
        Settings of TensorRT-RTX. None: TensorRT's own.
    """

    shared_workspace: bool = False
    profiler: Any = None
    runtime: RuntimeSettings | None = None


def warn_of_streaming(name: str) -> None:
    """Warn that calls run without CUDA graphs because an engine of this name streams weights."""
    warnings.warn(
        f"engine {name!r} streams weights, and TensorRT waits for the device meanwhile, which a CUDA graph "
        "cannot contain: calls run without graphs until its weight streaming budget is the whole again.",
        RuntimeWarning,
        stacklevel=3,
    )


class ContextFactory:
    """Makes execution contexts for one module, with the settings that follow from the module's modes.

    Parameters
    ----------
    handle : EngineHandle
        The engine. The factory keeps it alive, because contexts must be destroyed before their engine.
    settings : ContextSettings, optional
        An attribute, replaced when the modes of the module change. Default: TensorRT's own settings.

    Raises
    ------
    ClosedError
        If the engine was closed.
    """

    def __init__(self, handle: EngineHandle, settings: ContextSettings | None = None) -> None:
        handle.engine  # noqa: B018  raises if it was closed
        self.handle = handle
        self.settings = settings or ContextSettings()
        self._has_warned = Cell(False)

    def can_capture(self) -> bool:
        """Return whether runs can be captured in CUDA graphs now, and warn once if not.

        TensorRT waits for the device while it streams weights, which a graph cannot contain.
        """
        if not self.handle.streams_weights:
            return True
        if not self._has_warned.update(lambda _: True):
            warn_of_streaming(self.handle.name)
        return False

    def create(self) -> tuple[Any, ContextSettings]:
        """Return an ``IExecutionContext`` for ordinary calls.

        Returns
        -------
        tuple of (IExecutionContext, ContextSettings)
            The context and its settings. With `shared_workspace` it runs only in the scratch memory of
            `give_workspace`.

        Raises
        ------
        BackendError
            If there is no memory for the context.
        """
        settings = self.settings  # read once, because another thread may replace them
        context = self._create(settings.runtime, user_managed=settings.shared_workspace)
        if settings.profiler is not None:
            context.profiler = settings.profiler
        return context, settings

    def create_for_graph(self) -> Any:
        """Return an ``IExecutionContext`` for one CUDA graph; contexts of one stream share scratch memory.

        Raises
        ------
        BackendError
            If there is no memory for the context.
        """
        return self._create(self.settings.runtime, user_managed=True, for_capture=True)

    def _create(
        self, runtime: RuntimeSettings | None, *, user_managed: bool, for_capture: bool = False
    ) -> Any:
        handle = self.handle
        # TensorRT-RTX compares a kernel cache with the current device when it reads it.
        with current_device(self.handle.device):
            config = None if runtime is None else handle.runtime_config(runtime, for_capture=for_capture)
            return handle.backend.create_context(
                handle.engine, handle.name, user_managed=user_managed, config=config
            )

    def give_workspace(self, context: Any, stream: int) -> torch.Tensor:
        """Give a context scratch memory for the shapes that it is set up for.

        Parameters
        ----------
        context : IExecutionContext
            With all input shapes set.
        stream : int
            The caller's CUDA stream; 0 on a CPU.

        Returns
        -------
        torch.Tensor
            The memory. Keep it as long as the context may run.

        Raises
        ------
        torch.OutOfMemoryError, MemoryError
            If there is no memory, on a GPU or a CPU.
        """
        return self._give(context, stream, int(context.update_device_memory_size_for_shapes()))

    def give_graph_workspace(self, context: Any, stream: int) -> torch.Tensor:
        """As `give_workspace`, for a context of `create_for_graph`.

        Without `ContextSettings.shared_workspace` the memory is large enough for the largest shapes, so that
        all graphs of a stream share the same memory.
        """
        if self.settings.shared_workspace:
            return self.give_workspace(context, stream)
        return self._give(context, stream, self.handle.backend.device_memory_size(self.handle.engine))

    def _give(self, context: Any, stream: int, size: int) -> torch.Tensor:
        with current_device(self.handle.device):
            workspace = shared_workspace(self.handle.device, stream, size)
        self.handle.backend.set_device_memory(context, workspace.data_ptr(), workspace.numel())
        return workspace


hide_from_dynamo(globals())
