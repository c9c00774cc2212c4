"""A reference plan: I/O tensors, optimization profiles, weights and the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt.errors import PlanError
from trt_rt.reference.dtypes import DTYPES_BY_NAME
from trt_rt.reference.fields import Fields
from trt_rt.reference.graph import Graph, decode_graph, encode_graph
from trt_rt.reference.io_tensors import (
    DimensionRelation,
    InputTensor,
    OutputTensor,
    decode_input,
    decode_output,
    decode_relation,
    encode_input,
    encode_output,
    encode_relation,
)
from trt_rt.reference.plan_container import pack, unpack
from trt_rt.reference.plan_weights import Weight, decode_weights, encode_weight
from trt_rt.reference.profiles import Profile, decode_profile, encode_profile

__all__ = ["DeviceKind", "Plan", "address_alignment", "pack_plan", "unpack_plan"]

DeviceKind = Literal["cpu", "cuda"]

_DEFAULT_DTYPES = ("float32", "float64", "float16", "bfloat16")
_MOST_IO_TENSORS = 4096
_MOST_PROFILES = 256


@dataclass(frozen=True)
class Plan:
    """The header of a plan: everything except the bytes of the weights."""

    name: str
    device: DeviceKind
    streamable_weights: bool
    refittable: bool
    torch_version: str
    default_dtype: torch.dtype
    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputTensor, ...]
    relations: tuple[DimensionRelation, ...]
    profiles: tuple[Profile, ...]
    weights: tuple[Weight, ...]
    graph: Graph


def address_alignment(device: DeviceKind) -> int:
    """Return the alignment of device tensors in bytes: TensorRT's 256 on CUDA, PyTorch's 64 on the CPU."""
    return 256 if device == "cuda" else 64


def pack_plan(plan: Plan, weights: Sequence[bytes | memoryview]) -> bytes:
    """Return the serialized plan; `weights` are in the order of ``plan.weights``."""
    return pack(_encode(plan), weights)


def unpack_plan(serialized: memoryview) -> tuple[Plan, memoryview]:
    """Read and check a plan from an untrusted source; return it and a view of the bytes of its weights.

    Raises
    ------
    PlanError
        It is not a reference plan of this version, is truncated or corrupted, or contradicts itself.
    """
    header, weights = unpack(serialized)
    return _decode(header, len(weights)), weights


def _encode(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "device": plan.device,
        "alignment": address_alignment(plan.device),
        "streamable_weights": plan.streamable_weights,
        "refittable": plan.refittable,
        "torch": plan.torch_version,
        "default_dtype": dtype_name(plan.default_dtype),
        "inputs": [encode_input(tensor) for tensor in plan.inputs],
        "outputs": [encode_output(tensor) for tensor in plan.outputs],
        "relations": [encode_relation(relation) for relation in plan.relations],
        "profiles": [encode_profile(profile) for profile in plan.profiles],
        "weights": [encode_weight(weight) for weight in plan.weights],
        "graph": encode_graph(plan.graph),
    }


def _decode(json: dict[str, Any], weights_length: int) -> Plan:
    fields = Fields(json, "the plan")
    inputs = tuple(decode_input(item) for item in fields.items("inputs", _MOST_IO_TENSORS))
    outputs = tuple(decode_output(item, inputs) for item in fields.items("outputs", _MOST_IO_TENSORS))
    names = [tensor.name for tensor in inputs] + [tensor.name for tensor in outputs]
    if len(set(names)) != len(names):
        raise PlanError("the plan's header is malformed: two I/O tensors have the same name")
    weights = decode_weights(fields.items("weights"), weights_length)
    device = cast("DeviceKind", fields.choice("device", ("cpu", "cuda")))
    alignment = fields.integer("alignment")
    plan = Plan(
        name=fields.text("name"),
        device=device,
        streamable_weights=fields.flag("streamable_weights"),
        refittable=fields.flag("refittable"),
        torch_version=fields.text("torch"),
        default_dtype=DTYPES_BY_NAME[fields.choice("default_dtype", _DEFAULT_DTYPES)],
        inputs=inputs,
        outputs=outputs,
        relations=tuple(decode_relation(item, inputs) for item in fields.items("relations")),
        profiles=tuple(decode_profile(item, inputs) for item in fields.items("profiles", _MOST_PROFILES)),
        weights=weights,
        graph=decode_graph(fields.value("graph"), len(inputs) + len(weights)),
    )
    fields.finish()
    if alignment != address_alignment(device) or not plan.profiles or len(plan.graph.outputs) != len(outputs):
        raise PlanError("the plan's header is malformed: alignment, profiles or outputs do not fit")
    return plan
