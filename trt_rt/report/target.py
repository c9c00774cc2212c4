"""The target of a measurement: an engine or a program, and the same model in other runtimes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from trt_rt.compiled import Partition, Program
from trt_rt.engine import Engine
from trt_rt.module import TRTModule
from trt_rt.module.find_engines import find_engines
from trt_rt.report.shapes import Shapes, label, make_inputs

__all__ = ["EngineTarget", "Peer", "ProgramTarget", "Target", "Workload"]


@dataclass(frozen=True)
class Workload:
    """The arguments of the measured calls.

    Attributes
    ----------
    label : str
        For people.
    arguments : tuple
        Positional arguments.
    keywords : dict
        Keyword arguments.
    """

    label: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """Another way to run the same model.

    Attributes
    ----------
    name : str
        For people.
    make : callable
        Takes a `Workload` and returns a callable of no arguments, or raises if this machine has no such peer.
    """

    name: str
    make: Callable[[Workload], Callable[[], Any]]


class Target(Protocol):
    """Something that can be measured."""

    name: str
    device: torch.device

    @property
    def peers(self) -> Sequence[Peer]:
        """Other ways to run the same model."""

    @property
    def partition(self) -> Partition | None:
        """How the model was divided, if it was."""

    def new_module(self) -> torch.nn.Module:
        """Return a module with modes of its own; all share the engines."""

    def engines(self) -> list[Engine]:
        """Return the engines."""


class EngineTarget:
    """One engine.

    Parameters
    ----------
    engine : Engine
        Stays the caller's.
    name : str
        For people.
    peers : sequence of Peer
        Other ways to run the model that the engine was built from.
    """

    partition = None

    def __init__(self, engine: Engine, name: str, peers: Sequence[Peer] = ()) -> None:
        self.name = name
        self.device = engine.device
        self.peers = tuple(peers)
        self._engine = engine

    def new_module(self) -> TRTModule:
        """Return a new module of the engine."""
        return TRTModule(self._engine)

    def engines(self) -> list[Engine]:
        """Return the engine."""
        return [self._engine]

    def workload(self, shapes: Shapes) -> Workload:
        """Return random inputs of these shapes; see `make_inputs`."""
        inputs = make_inputs(self._engine.inputs, shapes, self.device)
        sizes = {
            tensor.name: tuple(value.tolist())
            if tensor.is_shape_tensor and value.dim()
            else tuple(value.shape)
            for tensor, value in zip(self._engine.inputs, inputs, strict=True)
        }
        return Workload(label(sizes) or "no inputs", inputs)


class ProgramTarget:
    """A program of engines and PyTorch operators.

    Parameters
    ----------
    program : Program
        Is not called itself: every mode gets a copy, which shares the engines and copies the weights of
        PyTorch operators.
    name : str
        For people.
    device : torch.device
        Where the program runs.
    peers : sequence of Peer
        Other ways to run the same model.
    """

    def __init__(self, program: Program, name: str, device: torch.device, peers: Sequence[Peer] = ()) -> None:
        self.name = name
        self.device = device
        self.peers = tuple(peers)
        self._program = program

    @property
    def partition(self) -> Partition:
        """How the model was divided."""
        return self._program.partition

    def new_module(self) -> torch.nn.Module:
        """Return a copy that shares the engines."""
        return copy.deepcopy(self._program)

    def engines(self) -> list[Engine]:
        """Return the program's engines."""
        return [module.engine for module in find_engines(self._program)]
