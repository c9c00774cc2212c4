"""A plan's graph prepared for running: where each layer runs, and which values are dropped after it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.reference.arguments import (
    PLACE_OF_ENGINE,
    PLACE_OF_HOST,
    PLACE_OF_OPERANDS,
    Argument,
    Place,
    Reference,
)
from trt_rt.reference.default_dtype import call_with_default_dtype
from trt_rt.reference.graph import Node
from trt_rt.reference.plan import Plan

__all__ = ["CPU", "Placement", "Program", "Step"]

CPU = torch.device("cpu")


class Placement(enum.Enum):
    """Where a value is."""

    DEVICE = enum.auto()
    """In the memory of the device that runs the engine."""
    HOST = enum.auto()
    """In host memory: a shape tensor, or computed from shape tensors."""
    WEIGHT = enum.auto()
    """In the memory where its layers read it, or in both memories."""
    NUMBER = enum.auto()
    """No tensor: a Python number, such as a size, or the None of an assertion."""


@dataclass(frozen=True)
class Step:
    """One layer.

    Attributes
    ----------
    node : Node
        The layer in the graph.
    result : int
        The value that it makes.
    on_host : bool
        Whether it works in host memory.
    reads : tuple of int
        The values that it reads.
    last_uses : tuple of int
        The values that no later layer reads.
    default_dtype : torch.dtype
        PyTorch's default dtype when the network was built.
    """

    node: Node
    result: int
    on_host: bool
    reads: tuple[int, ...]
    last_uses: tuple[int, ...]
    default_dtype: torch.dtype

    @property
    def needs_values(self) -> bool:
        """Whether its result's shape, or the number that it gives, depends on values in device memory."""
        return self.node.data_dependent and not self.on_host

    def call(self, operands: Mapping[int, Any], engine: torch.device, host: torch.device = CPU) -> Any:
        """Run the layer, and check that its result is what the plan declares.

        Parameters
        ----------
        operands : mapping
            The values that it reads, by number.
        engine : torch.device
            The engine's device.
        host : torch.device
            Where layers in host memory run.

        Raises
        ------
        ExecutionError
            The result is not what the plan declares.
        """
        places = {
            PLACE_OF_ENGINE: engine,
            PLACE_OF_HOST: host,
            PLACE_OF_OPERANDS: host if self.on_host else engine,
        }
        node = self.node
        args = [_fill_in(argument, operands, places) for argument in node.args]
        kwargs = {name: _fill_in(value, operands, places) for name, value in node.kwargs.items()}
        if node.reads_numbers:
            node.operator.check_arguments(args, kwargs)
        if torch.get_default_dtype() is self.default_dtype:
            result = node.operator.function(*args, **kwargs)
        else:
            declared = None if node.result is None else node.result.dtype
            result = call_with_default_dtype(node.operator, args, kwargs, self.default_dtype, declared)
        if node.result is not None:
            node.result.check(result)
        return result


def _fill_in(argument: Argument, operands: Mapping[int, Any], places: Mapping[Place, torch.device]) -> Any:
    """Replace references by values and places by devices."""
    kind = type(argument)
    if kind is Reference:
        return operands[argument.index]
    if kind is list:
        return [_fill_in(element, operands, places) for element in argument]
    if kind is Place:
        return places[argument]
    return argument


class Program:
    """The steps of a plan's network, and the places of its values.

    Parameters
    ----------
    plan : Plan
        A validated plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.first_weight = len(plan.inputs)
        self.leaves = plan.graph.leaves
        self.outputs = plan.graph.outputs
        placements = [
            Placement.HOST if tensor.location == "host" else Placement.DEVICE for tensor in plan.inputs
        ]
        placements += [Placement.WEIGHT] * len(plan.weights)
        last_reader = self._last_readers(plan.graph.nodes)
        steps = []
        for position, node in enumerate(plan.graph.nodes):
            reads = node.references
            operands = {placements[index] for index in reads}
            on_host = _runs_on_host(node, operands)
            steps.append(
                Step(
                    node=node,
                    result=self.leaves + position,
                    on_host=on_host,
                    reads=reads,
                    last_uses=tuple(index for index in reads if last_reader.get(index) == position),
                    default_dtype=plan.default_dtype,
                )
            )
            placements.append(_placement_of_result(node, operands, on_host))
        self.steps = tuple(steps)
        self.placements = tuple(placements)

    @property
    def weights_on_host(self) -> frozenset[int]:
        """Numbers of the weights that layers in host memory read."""
        return self._weights_of_steps(on_host=True)

    @property
    def weights_on_device(self) -> frozenset[int]:
        """Numbers of the weights that layers on the device read, and of those that are outputs."""
        returned = {index - self.first_weight for index in self.outputs if self.is_weight(index)}
        return self._weights_of_steps(on_host=False).union(returned)

    @property
    def waits_for_device(self) -> bool:
        """Whether a run must wait for the device, for a size or a number, or to copy from host memory."""
        return any(
            step.needs_values
            or any(self.is_upload(step, index) or self.is_download(step, index) for index in step.reads)
            for step in self.steps
        ) or any(self.placements[index] is Placement.HOST for index in self.outputs)

    def is_weight(self, index: int) -> bool:
        """Whether a value is a weight."""
        return self.first_weight <= index < self.leaves

    def is_upload(self, step: Step, index: int) -> bool:
        """Whether a layer on the device reads this value from host memory."""
        return not step.on_host and self.placements[index] is Placement.HOST

    def is_download(self, step: Step, index: int) -> bool:
        """Whether a layer in host memory reads this value from the device."""
        return step.on_host and self.placements[index] is Placement.DEVICE

    def _weights_of_steps(self, on_host: bool) -> frozenset[int]:
        return frozenset(
            index - self.first_weight
            for step in self.steps
            if step.on_host is on_host
            for index in step.reads
            if self.is_weight(index)
        )

    def _last_readers(self, nodes: tuple[Node, ...]) -> dict[int, int]:
        """For each value that a run may drop, the position of the last layer that reads it."""
        readers = {index: position for position, node in enumerate(nodes) for index in node.references}
        for index in (*range(self.first_weight), *self.outputs):
            readers.pop(index, None)
        return readers


def _runs_on_host(node: Node, operands: set[Placement]) -> bool:
    if node.place in (PLACE_OF_HOST, PLACE_OF_ENGINE):
        return node.place == PLACE_OF_HOST
    if node.operator.gives_tensors:
        return Placement.HOST in operands and Placement.DEVICE not in operands
    return Placement.DEVICE not in operands


def _placement_of_result(node: Node, operands: set[Placement], on_host: bool) -> Placement:
    if not node.operator.gives_tensors:
        return Placement.NUMBER
    if node.operator.takes_item and Placement.NUMBER in operands:
        return Placement.NUMBER
    return Placement.HOST if on_host else Placement.DEVICE
