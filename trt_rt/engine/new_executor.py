"""The making of executors, which run an engine's calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_rt._core.call import Executor
from trt_rt._core.io_tensor import IOTensor
from trt_rt.backend.output_allocator import output_allocator_class
from trt_rt.engine.contexts import ContextFactory
from trt_rt.engine.engine import Engine
from trt_rt.engine.placement import current_device

__all__ = ["new_executor"]


def new_executor(
    engine: Engine,
    inputs: Sequence[IOTensor],
    outputs: Sequence[IOTensor],
    contexts: ContextFactory,
    **options: Any,
) -> Executor:
    """Return an `Executor` with an execution context of its own.

    The engine pauses the executor for changes, and closes it when it is closed.

    Parameters
    ----------
    engine : Engine
        The engine that the executor runs.
    inputs, outputs : sequence of IOTensor
        All inputs and outputs of the engine, in the order that calls use.
    contexts : ContextFactory
        Makes the executor's execution contexts. Several executors may share it.
    **options
        Further arguments of `Executor`.

    Raises
    ------
    ClosedError
        If the engine was closed.
    BackendError
        If there is no memory for an execution context.
    """
    users = engine.context_users
    return users.gate.run(_new_executor, engine, tuple(inputs), tuple(outputs), contexts, options)


def _new_executor(
    engine: Engine,
    inputs: tuple[IOTensor, ...],
    outputs: tuple[IOTensor, ...],
    contexts: ContextFactory,
    options: dict[str, Any],
) -> Executor:
    handle = engine.handle
    with current_device(handle.device):
        executor = Executor(
            contexts,
            inputs,
            outputs,
            device=handle.device,
            name=handle.name,
            take_error=handle.backend.log.take_error,
            new_allocator=output_allocator_class(handle.backend.api),
            **options,
        )
        engine.context_users.add(executor)
    return executor
