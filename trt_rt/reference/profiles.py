"""Optimization profiles, and how a plan's header describes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trt_rt.errors import PlanError
from trt_rt.reference.fields import Fields
from trt_rt.reference.io_tensors import LARGEST_DIMENSION, InputTensor

__all__ = ["LARGEST_MEMORY", "Profile", "Range", "decode_profile", "encode_profile"]

LARGEST_MEMORY = 2**62
"""Bytes; more than any machine has."""

_INT64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Range:
    """Smallest, best and largest dimensions of an input, or values of a shape tensor."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def admits(self, sizes: tuple[int, ...]) -> bool:
        """Return whether there are as many sizes, each within the range."""
        return len(sizes) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, sizes, self.max, strict=True)
        )


@dataclass(frozen=True)
class Profile:
    """An optimization profile.

    Attributes
    ----------
    shapes : tuple of Range
        One per input.
    values : tuple of (Range or None)
        One per input; None for inputs that are not shape tensors.
    scratch_bytes : int
        Memory for intermediate results at the largest shapes.
    """

    shapes: tuple[Range, ...]
    values: tuple[Range | None, ...]
    scratch_bytes: int = 0


def encode_profile(profile: Profile) -> dict[str, Any]:
    """Return a profile as JSON."""
    return {
        "shapes": [_encode_range(shapes) for shapes in profile.shapes],
        "values": [_encode_range(values) for values in profile.values],
        "scratch_bytes": profile.scratch_bytes,
    }


def decode_profile(json: object, inputs: tuple[InputTensor, ...]) -> Profile:
    """Read and check a profile of `inputs`.

    Raises
    ------
    PlanError
        `json` does not describe a profile of these inputs.
    """
    fields = Fields(json, "a profile")
    shapes, values = fields.items("shapes"), fields.items("values")
    scratch_bytes = fields.integer("scratch_bytes", 0, LARGEST_MEMORY)
    fields.finish()
    if len(shapes) != len(inputs) or len(values) != len(inputs):
        raise PlanError("the plan's header is malformed: a profile must have one range for each input")
    return Profile(
        shapes=tuple(
            _decode_range(item, len(tensor.shape), 0, LARGEST_DIMENSION)
            for item, tensor in zip(shapes, inputs, strict=True)
        ),
        values=tuple(
            _decode_range(item, math.prod(tensor.shape), *_INT64) if tensor.location == "host" else None
            for item, tensor in zip(values, inputs, strict=True)
        ),
        scratch_bytes=scratch_bytes,
    )


def _encode_range(sizes: Range | None) -> list[tuple[int, ...]] | None:
    return None if sizes is None else [sizes.min, sizes.opt, sizes.max]


def _decode_range(json: object, count: int, low: int, high: int) -> Range:
    if isinstance(json, list) and len(json) == 3:
        triple = [Fields.check_integers(item, "a range", low, high, count) for item in json]
        if all(len(sizes) == count for sizes in triple):
            found = Range(*triple)
            if not (found.admits(found.min) and found.admits(found.opt)):
                raise PlanError(
                    "the plan's header is malformed: the smallest, usual and largest sizes of a range, "
                    f"{list(triple)}, are not in this order"
                )
            return found
    raise PlanError("the plan's header is malformed: a range must be three lists of the tensor's length")
