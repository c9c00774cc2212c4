"""The inputs and outputs of a plan, and how the plan's header describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt.errors import PlanError
from trt_rt.reference.dims import MAX_DIMS
from trt_rt.reference.dtypes import DTYPES_BY_NAME, TENSORRT_DTYPES
from trt_rt.reference.fields import Fields

__all__ = [
    "LARGEST_DIMENSION",
    "DimensionRelation",
    "InputTensor",
    "OutputTensor",
    "decode_input",
    "decode_output",
    "decode_relation",
    "encode_input",
    "encode_output",
    "encode_relation",
]

LARGEST_DIMENSION = 2**31 - 1
"""The largest dimension that an optimization profile of TensorRT can hold."""

_LARGEST_COEFFICIENT = 2**31 - 1

Location = Literal["device", "host"]


@dataclass(frozen=True)
class InputTensor:
    """An input. A dimension of -1 is set at run time."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    location: Location = "device"

    @property
    def is_dynamic(self) -> bool:
        """Whether the caller must set the shape."""
        return -1 in self.shape


@dataclass(frozen=True)
class OutputTensor:
    """An output.

    Attributes
    ----------
    name, dtype, shape
        As for an input.
    aliased_input : str or None
        The input whose memory the output is written to.
    data_dependent : bool
        Whether the shape is known only after the network has run.
    known_dims : tuple
        For each dimension: its size, the (input, axis) whose size it equals, or None.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    aliased_input: str | None
    data_dependent: bool
    known_dims: tuple[int | tuple[int, int] | None, ...]


@dataclass(frozen=True)
class DimensionRelation:
    """``dimension axis of input == scale * (dimension of_axis of of_input) + offset``."""

    input: int
    axis: int
    of_input: int
    of_axis: int
    scale: int
    offset: int


def encode_input(tensor: InputTensor) -> dict[str, Any]:
    """Return an input as JSON."""
    return {
        "name": tensor.name,
        "dtype": dtype_name(tensor.dtype),
        "shape": tensor.shape,
        "location": tensor.location,
    }


def encode_output(tensor: OutputTensor) -> dict[str, Any]:
    """Return an output as JSON."""
    return {
        "name": tensor.name,
        "dtype": dtype_name(tensor.dtype),
        "shape": tensor.shape,
        "aliased_input": tensor.aliased_input,
        "data_dependent": tensor.data_dependent,
        "known_dims": tensor.known_dims,
    }


def encode_relation(relation: DimensionRelation) -> list[int]:
    """Return a relation as JSON."""
    return [
        relation.input,
        relation.axis,
        relation.of_input,
        relation.of_axis,
        relation.scale,
        relation.offset,
    ]


def decode_input(json: object) -> InputTensor:
    """Read and check an input.

    Raises
    ------
    PlanError
        `json` does not describe an input.
    """
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
    if tensor.location == "host" and tensor.shape and tensor.shape[0] > _LONGEST_SHAPE_TENSOR:
        raise PlanError(
            f"the plan's header is malformed: shape tensor {tensor.name!r} has {tensor.shape[0]} elements, "
            f"more than {_LONGEST_SHAPE_TENSOR}"
        )
    return tensor


def decode_output(json: object, inputs: tuple[InputTensor, ...]) -> OutputTensor:
    """Read and check an output; `inputs` are those of the same plan.

    Raises
    ------
    PlanError
        `json` does not describe an output of a plan with these inputs.
    """
    fields = Fields(json, "an output")
    tensor = OutputTensor(
        name=fields.text("name"),
        dtype=DTYPES_BY_NAME[fields.choice("dtype", _IO_DTYPE_NAMES)],
        shape=fields.integers("shape", -1, LARGEST_DIMENSION, MAX_DIMS),
        aliased_input=fields.optional_text("aliased_input"),
        data_dependent=fields.flag("data_dependent"),
        known_dims=tuple(_decode_known_dim(item, inputs) for item in fields.items("known_dims")),
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
                f"the plan's header is malformed: {tensor.name!r} cannot share the memory of input "
                f"{tensor.aliased_input!r}"
            )
    return tensor


def decode_relation(json: object, inputs: tuple[InputTensor, ...]) -> DimensionRelation:
    """Read and check a relation between dimensions of `inputs`.

    Raises
    ------
    PlanError
        `json` does not describe a relation between dimensions of these inputs.
    """
    numbers = Fields.check_integers(
        json, "a relation of dimensions", -_LARGEST_COEFFICIENT, _LARGEST_COEFFICIENT, 6
    )
    if len(numbers) == 6:
        relation = DimensionRelation(*numbers)
        if all(
            0 <= index < len(inputs) and 0 <= axis < len(inputs[index].shape)
            for index, axis in ((relation.input, relation.axis), (relation.of_input, relation.of_axis))
        ):
            return relation
    raise PlanError("the plan's header is malformed: a relation names a dimension that no input has")


def _decode_known_dim(json: object, inputs: tuple[InputTensor, ...]) -> int | tuple[int, int] | None:
    if json is None:
        return None
    if isinstance(json, list):
        pair = Fields.check_integers(json, "'known_dims'", 0, LARGEST_DIMENSION, 2)
        if len(pair) == 2 and pair[0] < len(inputs) and pair[1] < len(inputs[pair[0]].shape):
            return (pair[0], pair[1])
        raise PlanError("the plan's header is malformed: 'known_dims' names a dimension that no input has")
    return Fields.check_integer(json, "'known_dims'", 0, LARGEST_DIMENSION)


_IO_DTYPE_NAMES = frozenset(dtype_name(dtype) for dtype in TENSORRT_DTYPES)

_LONGEST_SHAPE_TENSOR = 4096
"""Elements. TensorRT's own shape tensors hold dimensions: at most a few dozen."""
