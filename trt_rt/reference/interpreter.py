"""Runs a program's steps on tensors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch

from trt_rt._core.dispatch_modes import without_dispatch_modes
from trt_rt.errors import ExecutionError
from trt_rt.reference.program import Program, Step
from trt_rt.reference.weights import WeightStore

__all__ = ["CpuTimer", "CudaTimer", "LayerTimer", "execute", "plain_execution"]


class LayerTimer(Protocol):
    """Measures the layers of one run."""

    def mark(self, layer: str) -> None:
        """Note that a layer has been enqueued; the time since the last mark is its own."""

    def milliseconds(self) -> list[tuple[str, float]]:
        """Return each layer and its time; on CUDA this waits until the run is over."""


class CpuTimer:
    """Measures layers that are done when their call returns."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._times: list[tuple[str, float]] = []

    def mark(self, layer: str) -> None:
        """Note that a layer is done."""
        now = time.perf_counter()
        self._times.append((layer, (now - self._last) * 1e3))
        self._last = now

    def milliseconds(self) -> list[tuple[str, float]]:
        """Return each layer and its time."""
        return list(self._times)


class CudaTimer:
    """Measures layers by events on the current stream."""

    def __init__(self) -> None:
        self._layers: list[str] = []
        self._events = [self._event()]

    def mark(self, layer: str) -> None:
        """Note that a layer has been enqueued."""
        self._layers.append(layer)
        self._events.append(self._event())

    def milliseconds(self) -> list[tuple[str, float]]:
        """Wait until the run is over, and return each layer and its time."""
        self._events[-1].synchronize()
        spans = zip(self._events, self._events[1:], strict=False)
        return [
            (layer, start.elapsed_time(end)) for layer, (start, end) in zip(self._layers, spans, strict=True)
        ]

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@contextmanager
def plain_execution(device: torch.device) -> Iterator[None]:
    """Shut out what the caller has switched on and a TensorRT engine would not see.

    Gradients, autocast, ``torch.set_default_device`` and other function modes, and dispatch modes such as
    ``FakeTensorMode`` would each change what the engine computes.
    """
    with (
        torch.inference_mode(),
        torch._C.DisableTorchFunction(),
        without_dispatch_modes(),
        _without_autocast(device.type),
        # For layers that work in host memory.
        _without_autocast("cpu"),
    ):
        yield


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def execute(
    program: Program,
    inputs: list[torch.Tensor],
    weights: WeightStore,
    device: torch.device,
    timer: LayerTimer | None,
) -> list[torch.Tensor]:
    """Run a network, on CUDA on the current stream.

    Parameters
    ----------
    program : Program
        The network.
    inputs : list of torch.Tensor
        In the plan's order; shape tensors in host memory.
    weights : WeightStore
        Its weights.
    device : torch.device
        The engine's device.
    timer : LayerTimer or None
        Told of every layer.

    Returns
    -------
    list of torch.Tensor
        The outputs; they may share memory with inputs, weights and each other.

    Raises
    ------
    ExecutionError
        A layer failed; the message names it.
    """
    values: list[Any] = [*inputs, *[None] * (program.leaves + len(program.steps) - len(inputs))]

    def operand(step: Step, index: int) -> Any:
        if program.is_weight(index):
            weight = index - program.first_weight
            if step.on_host:
                return weights.host(weight)
            if values[index] is None:
                values[index] = weights.device(weight)
            return values[index]
        if program.is_upload(step, index):
            return values[index].to(device, non_blocking=True)
        return values[index].cpu() if program.is_download(step, index) else values[index]

    for step in program.steps:
        try:
            operands = {index: operand(step, index) for index in step.reads}
            values[step.result] = step.call(operands, device)
        except Exception as error:
            raise ExecutionError(
                f"layer {step.node.name!r} ({step.node.operator.name}): {type(error).__name__}: {error}"
            ) from error
        for index in step.last_uses:
            values[index] = None
        if timer is not None:
            timer.mark(step.node.name)
    return [_output(program, values, weights, index) for index in program.outputs]


def _output(program: Program, values: list[Any], weights: WeightStore, index: int) -> torch.Tensor:
    value = values[index]
    if value is None and program.is_weight(index):
        value = weights.device(index - program.first_weight)
    if not isinstance(value, torch.Tensor):
        raise ExecutionError(f"an output of the network is no tensor but {type(value).__name__}")
    return value
