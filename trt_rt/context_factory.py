"""Makes an engine's execution contexts as a module's modes want them."""

from __future__ import annotations

from typing import Any

import torch

from trt_rt.engine_handle import EngineHandle
from trt_rt.modes import Modes
from trt_rt.workspaces import shared_workspace

__all__ = ["ContextFactory"]


class ContextFactory:
    """Makes execution contexts for one module, and gives them what its modes ask for.

    Parameters
    ----------
    handle : EngineHandle
        Kept alive: contexts must be destroyed before their engine.
    device : torch.device
        Of the engine.
    modes : Modes
        Of the module; replaced when they change.
    """

    def __init__(self, handle: EngineHandle, device: torch.device, modes: Modes) -> None:
        self._handle = handle
        self._device = device
        self.modes = modes

    def create(self) -> tuple[Any, bool]:
        """An ``IExecutionContext`` for ordinary calls.

        Returns
        -------
        tuple of (IExecutionContext, bool)
            The context, and whether it runs in scratch memory of `give_workspace` only.

        Raises
        ------
        BackendError
            If there is no memory for it.
        """
        modes = self.modes  # as they are now: another thread may change them meanwhile
        context = self._create(user_managed=modes.dynamic_resources)
        if modes.profiler is not None:
            context.profiler = modes.profiler
        return context, modes.dynamic_resources

    def create_for_graph(self) -> Any:
        """An ``IExecutionContext`` for one CUDA graph; many share the scratch memory of their stream.

        Raises
        ------
        BackendError
            If there is no memory for it.
        """
        return self._create(user_managed=True)

    def _create(self, *, user_managed: bool) -> Any:
        handle = self._handle
        with torch.cuda.device(self._device if self._device.type == "cuda" else -1):
            return handle.backend.create_context(handle.engine, handle.name, user_managed=user_managed)

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
            The memory; to be kept as long as the context may run.

        Raises
        ------
        torch.OutOfMemoryError, RuntimeError
            If there is none.
        """
        return self._give(context, stream, int(context.update_device_memory_size_for_shapes()))

    def give_graph_workspace(self, context: Any, stream: int) -> torch.Tensor:
        """As `give_workspace`, for a context of `create_for_graph`.

        Unless resources are dynamic it is as large as any shapes need, so that all graphs of a stream have
        the same.
        """
        if self.modes.dynamic_resources:
            return self.give_workspace(context, stream)
        return self._give(context, stream, self._handle.backend.device_memory_size(self._handle.engine))

    def _give(self, context: Any, stream: int, size: int) -> torch.Tensor:
        with torch.cuda.device(self._device if self._device.type == "cuda" else -1):
            workspace = shared_workspace(self._device, stream, size)
        self._handle.backend.set_device_memory(context, workspace.data_ptr(), workspace.numel())
        return workspace
