"""The contents of a plan: its I/O tensors, layers and memory.

A reference plan can be read anywhere. Only TensorRT can read its own plans, and only by loading them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trt_rt._core.io_tensor import IOTensor
from trt_rt.compiler.network_io import reference_io
from trt_rt.engine import Engine
from trt_rt.engine.output_shapes import OutputShape, limits_of_profile
from trt_rt.errors import BackendError, ExecutionError, InputError, PlanError
from trt_rt.reference.plan import unpack_plan

__all__ = ["LIMITS", "PlanContents", "load_contents", "read_reference_plan"]

LIMITS: tuple[Literal["min", "opt", "max"], ...] = ("min", "opt", "max")
"""The limits of an optimization profile."""


@dataclass(frozen=True)
class PlanContents:
    """The contents of a plan.

    Attributes
    ----------
    io : tuple of IOTensor
        Inputs, then outputs.
    num_profiles : int
        Number of optimization profiles.
    output_shapes : dict of str to list
        For each output with a dimension that is known only at run time, its shapes at the limits of each
        profile, with None for a size that depends on data. Empty if the engine cannot be loaded here.
    layers : list or None
        Layers as the backend's inspector gives them: dicts with ``Name`` and ``LayerType``, or only names.
        None where the backend has no inspector.
    memory : dict of str to int
        Sizes in bytes, by purpose.
    """

    io: tuple[IOTensor, ...]
    num_profiles: int
    output_shapes: dict[str, list[dict[str, OutputShape]]]
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
    try:
        with Engine.from_bytes(plan) as engine:
            output_shapes = _output_shapes(engine)
    except (BackendError, PlanError):  # a plan for CUDA on a machine without a GPU, or one that is not loaded
        output_shapes = {}
    return PlanContents(
        io=reference_io(plan),
        num_profiles=len(content.profiles),
        output_shapes=output_shapes,
        layers=[{"Name": node.name, "LayerType": node.operator.name} for node in content.graph.nodes],
        memory={
            "weights": sum(weight.nbytes for weight in content.weights),
            "execution context": max(profile.scratch_bytes for profile in content.profiles),
        },
    )


def load_contents(plan: memoryview, name: str, *, host_code_allowed: bool = False) -> PlanContents:
    """Load a plan with TensorRT on the current GPU and return its contents.

    Raises
    ------
    BackendError
        No backend can run the engine here.
    PlanError
        The backend refuses the plan.
    """
    with Engine.from_bytes(plan, name=name, engine_host_code_allowed=host_code_allowed) as engine:
        handle = engine.handle
        return PlanContents(
            io=engine.inputs + engine.outputs,
            num_profiles=engine.num_optimization_profiles,
            output_shapes=_output_shapes(engine),
            layers=_layers(engine),
            memory={
                "execution context": handle.backend.device_memory_size(handle.engine),
                "streamable weights": engine.streamable_weights_size,
            },
        )


def _output_shapes(engine: Engine) -> dict[str, list[dict[str, OutputShape]]]:
    """Return the shapes of every dynamic output at the limits of each profile that TensorRT accepts."""
    found: dict[str, list[dict[str, OutputShape]]] = {
        output.name: [] for output in engine.outputs if output.is_dynamic
    }
    if not found:
        return found
    for profile in range(engine.num_optimization_profiles):
        shapes = [_shapes_at(engine, profile, limit) for limit in LIMITS]
        for number, output in enumerate(engine.outputs):
            if output.name in found:
                found[output.name].append(
                    {limit: at[number] for limit, at in zip(LIMITS, shapes, strict=True) if at is not None}
                )
    return found


def _shapes_at(
    engine: Engine, profile: int, limit: Literal["min", "opt", "max"]
) -> tuple[OutputShape, ...] | None:
    inputs = limits_of_profile(engine.inputs, profile, limit)
    try:
        return None if inputs is None else engine.output_shapes(*inputs)
    except (InputError, ExecutionError):  # limits that do not fit together: x[1:8] with y[2:8] and x + y
        return None


def _layers(engine: Engine) -> list[Any] | None:
    try:
        layers: list[Any] = engine.inspect()["Layers"]
    except BackendError:  # the lean and dispatch runtimes have no inspector
        return None
    return layers
