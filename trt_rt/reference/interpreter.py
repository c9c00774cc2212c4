"""Runs a program's steps on tensors."""

from __future__ import annotations

from typing import Any

import torch

from trt_rt.errors import ExecutionError
from trt_rt.reference.dry_run import dry_run
from trt_rt.reference.layer_timing import LayerTimer
from trt_rt.reference.program import Program, Step
from trt_rt.reference.weights import WeightStore

__all__ = ["execute"]


def execute(
    program: Program,
    inputs: list[torch.Tensor],
    weights: WeightStore,
    device: torch.device,
    timer: LayerTimer | None,
    unknown: frozenset[int],
) -> list[torch.Tensor]:
    """Run a network, on CUDA on the current stream.

    Parameters
    ----------
    program : Program
        The network.
    inputs : list of torch.Tensor
        The inputs, in the plan's order; shape tensors are in host memory.
    weights : WeightStore
        Its weights.
    device : torch.device
        The engine's device.
    timer : LayerTimer or None
        Records the time of every layer.
    unknown : frozenset of int
        Positions of the layers whose results were not inferred.

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

    for position, step in enumerate(program.steps):
        try:
            operands = {index: operand(step, index) for index in step.reads}
            if position in unknown:
                dry_run(step, operands)
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
