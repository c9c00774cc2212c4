"""What a reference plan says: I/O tensors, optimization profiles, weights and the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from trt_rt.errors import PlanError
from trt_rt.reference.dims import MAX_DIMS
from trt_rt.reference.dtypes import DTYPES_BY_NAME, TENSORRT_DTYPES, dtype_name
from trt_rt.reference.fields import Fields
from trt_rt.reference.graph import Graph, decode_graph, encode_graph
from trt_rt.reference.plan_container import aligned, pack, unpack

__all__ = [
    "LARGEST_DIMENSION",
    "LARGEST_MEMORY",
    "DimensionRelation",
    "InputTensor",
    "OutputTensor",
    "Plan",
    "Profile",
    "Range",
    "Weight",
    "address_alignment",
    "pack_plan",
    "unpack_plan",
]

LARGEST_DIMENSION = 2**31 - 1
"""The largest dimension that TensorRT's profiles know."""

_MOST_WEIGHT_DIMS = 64
LARGEST_MEMORY = 2**62
"""Bytes; more than any machine has."""

_INT64 = (-(2**63), 2**63 - 1)

DeviceKind = Literal["cpu", "cuda"]
Location = Literal["device", "host"]


def address_alignment(device: DeviceKind) -> int:
    """Bytes to which device tensors must be aligned: TensorRT's 256 on CUDA, PyTorch's 64 on the CPU."""
    return 256 if device == "cuda" else 64


@dataclass(frozen=True)
class InputTensor:
    """An input; -1 in `shape` is a dimension that is set at run time."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    location: Location = "device"

    @property
    def is_dynamic(self) -> bool:
        """Whether its shape must be set."""
        return -1 in self.shape


@dataclass(frozen=True)
class OutputTensor:
    """An output.

    Attributes
    ----------
    name, dtype, shape
        As for an input.
    aliased_input : str or None
        The input into whose memory it is written.
    data_dependent : bool
        Whether its shape is known only when the network has run.
    known_dims : tuple
        For each dimension an integer, or the input and the axis that it is equal to, or None.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    aliased_input: str | None
    data_dependent: bool
    known_dims: tuple[int | tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Range:
    """Smallest, best and largest dimensions of an input, or values of a shape tensor."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def admits(self, sizes: tuple[int, ...]) -> bool:
        """Whether there are as many sizes, each within the range."""
        return len(sizes) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, sizes, self.max, strict=True)
        )


@dataclass(frozen=True)
class Profile:
    """An optimization profile.

    Attributes
    ----------
    shapes : tuple of Range
        One an input.
    values : tuple of (Range or None)
        One an input; None for those that are not shape tensors.
    scratch_bytes : int
        Memory that the intermediate results need at the largest shapes.
    """

    shapes: tuple[Range, ...]
    values: tuple[Range | None, ...]
    scratch_bytes: int = 0


@dataclass(frozen=True)
class DimensionRelation:
    """``dimension axis of input == scale * (dimension of_axis of of_input) + offset``."""

    input: int
    axis: int
    of_input: int
    of_axis: int
    scale: int
    offset: int


@dataclass(frozen=True)
class Weight:
    """A weight.

    Attributes
    ----------
    dtype, shape
        Of its values.
    offset : int
        Where it lies in the plan's weights, in bytes.
    name : str or None
        Its key in the state dict of the module that the plan was built of; None for other constants.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    name: str | None

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """Everything that a plan says, but for the bytes of the weights."""

    name: str
    device: DeviceKind
    streamable_weights: bool
    refittable: bool
    torch_version: str
    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputTensor, ...]
    relations: tuple[DimensionRelation, ...]
    profiles: tuple[Profile, ...]
    weights: tuple[Weight, ...]
    graph: Graph


def pack_plan(plan: Plan, weights: Sequence[bytes | memoryview]) -> bytes:
    """Return the serialized plan; `weights` in the order of ``plan.weights``."""
    return pack(_to_json(plan), weights)


def unpack_plan(serialized: memoryview) -> tuple[Plan, memoryview]:
    """Read a plan, trusting nothing; return it and a view of the bytes of its weights.

    Raises
    ------
    PlanError
        It is not a reference plan of this version, truncated, corrupted, or does not make sense.
    """
    header, weights = unpack(serialized)
    return _from_json(header, len(weights)), weights


def _to_json(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "device": plan.device,
        "alignment": address_alignment(plan.device),
        "streamable_weights": plan.streamable_weights,
        "refittable": plan.refittable,
        "torch": plan.torch_version,
        "inputs": [
            {
                "name": tensor.name,
                "dtype": dtype_name(tensor.dtype),
                "shape": tensor.shape,
                "location": tensor.location,
            }
            for tensor in plan.inputs
        ],
        "outputs": [
            {
                "name": tensor.name,
                "dtype": dtype_name(tensor.dtype),
                "shape": tensor.shape,
                "aliased_input": tensor.aliased_input,
                "data_dependent": tensor.data_dependent,
                "known_dims": tensor.known_dims,
            }
            for tensor in plan.outputs
        ],
        "relations": [
            [
                relation.input,
                relation.axis,
                relation.of_input,
                relation.of_axis,
                relation.scale,
                relation.offset,
            ]
            for relation in plan.relations
        ],
        "profiles": [
            {
                "shapes": [_range_to_json(shapes) for shapes in profile.shapes],
                "values": [_range_to_json(values) for values in profile.values],
                "scratch_bytes": profile.scratch_bytes,
            }
            for profile in plan.profiles
        ],
        "weights": [
            {
                "dtype": dtype_name(weight.dtype),
                "shape": weight.shape,
                "offset": weight.offset,
                "name": weight.name,
            }
            for weight in plan.weights
        ],
        "graph": encode_graph(plan.graph),
    }


def _range_to_json(sizes: Range | None) -> list[tuple[int, ...]] | None:
    return None if sizes is None else [sizes.min, sizes.opt, sizes.max]


def _from_json(json: dict[str, Any], weights_length: int) -> Plan:
    fields = Fields(json, "the plan")
    inputs = tuple(_input_from_json(item) for item in fields.items("inputs"))
    outputs = tuple(_output_from_json(item, inputs) for item in fields.items("outputs"))
    names = [tensor.name for tensor in inputs] + [tensor.name for tensor in outputs]
    if len(set(names)) != len(names):
        raise PlanError("the plan's header is malformed: two I/O tensors have the same name")
    weights = _weights_from_json(fields.items("weights"), weights_length)
    device = cast("DeviceKind", fields.choice("device", ("cpu", "cuda")))
    alignment = fields.integer("alignment")
    plan = Plan(
        name=fields.text("name"),
        device=device,
        streamable_weights=fields.flag("streamable_weights"),
        refittable=fields.flag("refittable"),
        torch_version=fields.text("torch"),
        inputs=inputs,
        outputs=outputs,
        relations=tuple(_relation_from_json(item, inputs) for item in fields.items("relations")),
        profiles=tuple(_profile_from_json(item, inputs) for item in fields.items("profiles")),
        weights=weights,
        graph=decode_graph(fields.value("graph"), len(inputs) + len(weights)),
    )
    fields.finish()
    if alignment != address_alignment(device) or not plan.profiles or len(plan.graph.outputs) != len(outputs):
        raise PlanError("the plan's header is malformed: alignment, profiles or outputs do not fit")
    return plan


def _input_from_json(json: object) -> InputTensor:
    fields = Fields(json, "an input")
    tensor = InputTensor(
        name=fields.text("name"),
        dtype=DTYPES_BY_NAME[fields.choice("dtype", _IO_DTYPE_NAMES)],
        shape=fields.integers("shape", -1, LARGEST_DIMENSION, MAX_DIMS),
        location=cast("Location", fields.choice("location", ("device", "host"))),
    )
    fields.finish()
    if tensor.location == "host" and (
        tensor.is_dynamic or len(tensor.shape) > 1 or tensor.dtype not in (torch.int32, torch.int64)
    ):
        raise PlanError(f"the plan's header is malformed: {tensor.name!r} cannot be a shape tensor")
    return tensor


def _output_from_json(json: object, inputs: tuple[InputTensor, ...]) -> OutputTensor:
    fields = Fields(json, "an output")
    tensor = OutputTensor(
        name=fields.text("name"),
        dtype=DTYPES_BY_NAME[fields.choice("dtype", _IO_DTYPE_NAMES)],
        shape=fields.integers("shape", -1, LARGEST_DIMENSION, MAX_DIMS),
        aliased_input=fields.optional_text("aliased_input"),
        data_dependent=fields.flag("data_dependent"),
        known_dims=tuple(_known_dim_from_json(item, inputs) for item in fields.items("known_dims")),
    )
    fields.finish()
    if len(tensor.known_dims) != len(tensor.shape):
        raise PlanError(f"the plan's header is malformed: 'known_dims' of {tensor.name!r}")
    if tensor.aliased_input is not None:
        partners = [source for source in inputs if source.name == tensor.aliased_input]
        if (
            not partners
            or partners[0].location == "host"
            or partners[0].dtype != tensor.dtype
            or tensor.data_dependent
        ):
            raise PlanError(
                f"the plan's header is malformed: {tensor.name!r} cannot lie in an input's memory"
            )
    return tensor


def _known_dim_from_json(json: object, inputs: tuple[InputTensor, ...]) -> int | tuple[int, int] | None:
    if json is None:
        return None
    if isinstance(json, list):
        pair = Fields.check_integers(json, "'known_dims'", 0, LARGEST_DIMENSION, 2)
        if len(pair) == 2 and pair[0] < len(inputs) and pair[1] < len(inputs[pair[0]].shape):
            return (pair[0], pair[1])
        raise PlanError("the plan's header is malformed: 'known_dims' names no dimension of an input")
    return Fields.check_integer(json, "'known_dims'", 0, LARGEST_DIMENSION)


def _relation_from_json(json: object, inputs: tuple[InputTensor, ...]) -> DimensionRelation:
    numbers = Fields.check_integers(json, "a relation of dimensions", *_INT64, 6)
    if len(numbers) == 6:
        relation = DimensionRelation(*numbers)
        if all(
            0 <= index < len(inputs) and 0 <= axis < len(inputs[index].shape)
            for index, axis in ((relation.input, relation.axis), (relation.of_input, relation.of_axis))
        ):
            return relation
    raise PlanError("the plan's header is malformed: a relation names no dimension of an input")


def _profile_from_json(json: object, inputs: tuple[InputTensor, ...]) -> Profile:
    fields = Fields(json, "a profile")
    shapes, values = fields.items("shapes"), fields.items("values")
    scratch_bytes = fields.integer("scratch_bytes", 0, LARGEST_MEMORY)
    fields.finish()
    if len(shapes) != len(inputs) or len(values) != len(inputs):
        raise PlanError("the plan's header is malformed: a profile must have one range an input")
    return Profile(
        shapes=tuple(
            _range_from_json(item, len(tensor.shape), 0, LARGEST_DIMENSION)
            for item, tensor in zip(shapes, inputs, strict=True)
        ),
        values=tuple(
            _range_from_json(item, math.prod(tensor.shape), *_INT64) if tensor.location == "host" else None
            for item, tensor in zip(values, inputs, strict=True)
        ),
        scratch_bytes=scratch_bytes,
    )


def _range_from_json(json: object, count: int, low: int, high: int) -> Range:
    if isinstance(json, list) and len(json) == 3:
        triple = [Fields.check_integers(item, "a range", low, high, count) for item in json]
        if all(len(sizes) == count for sizes in triple):
            return Range(*triple)
    raise PlanError("the plan's header is malformed: a range must be three lists of the tensor's length")


def _weights_from_json(json: list[Any], weights_length: int) -> tuple[Weight, ...]:
    weights = []
    end = 0
    for item in json:
        fields = Fields(item, "a weight")
        weight = Weight(
            dtype=DTYPES_BY_NAME[fields.choice("dtype", DTYPES_BY_NAME)],
            shape=fields.integers("shape", 0, LARGEST_MEMORY, _MOST_WEIGHT_DIMS),
            offset=fields.integer("offset", 0, LARGEST_MEMORY),
            name=fields.optional_text("name"),
        )
        fields.finish()
        if weight.offset != end:
            raise PlanError("the plan's header is malformed: a weight does not begin where the last one ends")
        end += aligned(weight.nbytes)
        if end > weights_length:
            raise PlanError("the plan's header is malformed: a weight ends outside the plan")
        weights.append(weight)
    if end != weights_length:
        raise PlanError("the plan's header is malformed: the weights leave bytes over")
    names = [weight.name for weight in weights if weight.name is not None]
    if len(set(names)) != len(names):
        raise PlanError("the plan's header is malformed: two weights have the same name")
    return tuple(weights)


_IO_DTYPE_NAMES = frozenset(dtype_name(dtype) for dtype in TENSORRT_DTYPES)
