"""The contents of a plan: its I/O tensors, layers and memory.

A reference plan can be read anywhere. Only TensorRT can read its own plans, and only by loading them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt._core.io_tensor import IOTensor, ProfileRange
from trt_rt.backend import Backend
from trt_rt.errors import BackendError
from trt_rt.reference.plan import Plan, unpack_plan

__all__ = ["PlanContents", "load_contents", "read_reference_plan"]


@dataclass(frozen=True)
class PlanContents:
    """The contents of a plan.

    Attributes
    ----------
    io : tuple of IOTensor
        Inputs, then outputs.
    num_profiles : int
        Number of optimization profiles.
    layers : list or None
        Layers as the backend's inspector gives them: dicts with ``Name`` and ``LayerType``, or only names.
        None where the backend has no inspector.
    memory : dict of str to int
        Sizes in bytes, by purpose.
    """

    io: tuple[IOTensor, ...]
    num_profiles: int
    layers: list[Any] | None
    memory: dict[str, int]


def read_reference_plan(plan: memoryview) -> PlanContents:
    """Read a reference plan. This needs no GPU, also if the plan was built for one.

    Raises
    ------
    PlanError
        The plan has another version, is truncated or is corrupted.
    """
    content, _ = unpack_plan(plan)
    inputs = tuple(
        IOTensor(
            name=tensor.name,
            mode="input",
            dtype=tensor.dtype,
            shape=tensor.shape,
            location=tensor.location,
            profiles=_ranges(content, number),
        )
        for number, tensor in enumerate(content.inputs)
    )
    outputs = tuple(
        IOTensor(
            name=tensor.name,
            mode="output",
            dtype=tensor.dtype,
            shape=tensor.shape,
            aliased_input=tensor.aliased_input,
        )
        for tensor in content.outputs
    )
    return PlanContents(
        io=inputs + outputs,
        num_profiles=len(content.profiles),
        layers=[{"Name": node.name, "LayerType": node.operator.name} for node in content.graph.nodes],
        memory={
            "weights": sum(weight.nbytes for weight in content.weights),
            "execution context": max(profile.scratch_bytes for profile in content.profiles),
        },
    )


def _ranges(plan: Plan, number: int) -> tuple[ProfileRange, ...]:
    found = [profile.values[number] or profile.shapes[number] for profile in plan.profiles]
    return tuple(ProfileRange(limits.min, limits.opt, limits.max) for limits in found)


def load_contents(
    plan: memoryview, backend: Backend, name: str, *, host_code_allowed: bool = False
) -> PlanContents:
    """Load a plan with TensorRT on the current GPU and return its contents.

    Raises
    ------
    BackendError
        The backend cannot run engines here.
    PlanError
        The backend refuses the plan.
    """
    backend.require(torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_available() else 0))
    runtime = backend.runtime()
    if host_code_allowed:
        runtime.engine_host_code_allowed = True
    engine = backend.deserialize(runtime, plan, name)
    tensors = backend.io_tensors(engine)
    contents = PlanContents(
        io=tuple(sorted(tensors, key=lambda tensor: tensor.mode)),  # a stable sort: inputs first
        num_profiles=engine.num_optimization_profiles,
        layers=_layers(backend, engine),
        memory={
            "execution context": engine.device_memory_size_v2,
            "streamable weights": engine.streamable_weights_size,
        },
    )
    del engine  # TensorRT requires an engine to go before its runtime
    return contents


def _layers(backend: Backend, engine: Any) -> list[Any] | None:
    try:
        layers: list[Any] = json.loads(backend.inspect(engine))["Layers"]
    except BackendError:  # the lean and dispatch runtimes have no inspector
        return None
    return layers
