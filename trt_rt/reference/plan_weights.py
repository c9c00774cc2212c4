"""The weights of a plan: what its header says about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt.errors import PlanError
from trt_rt.reference.dtypes import DTYPES_BY_NAME
from trt_rt.reference.fields import Fields
from trt_rt.reference.plan_container import aligned
from trt_rt.reference.profiles import LARGEST_MEMORY

__all__ = ["Weight", "decode_weights", "encode_weight"]

_MOST_DIMS = 64


@dataclass(frozen=True)
class Weight:
    """A weight.

    Attributes
    ----------
    dtype, shape
        Of its values.
    offset : int
        Where its values begin in the plan's weights, in bytes.
    name : str or None
        Its key in the state dict of the module that the plan was built from; None for other constants.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    name: str | None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def encode_weight(weight: Weight) -> dict[str, Any]:
    """Return a weight as JSON."""
    return {
        "dtype": dtype_name(weight.dtype),
        "shape": weight.shape,
        "offset": weight.offset,
        "name": weight.name,
    }


def decode_weights(json: list[Any], length: int) -> tuple[Weight, ...]:
    """Read the weights of a plan and check that they fill its `length` bytes of weights exactly.

    Raises
    ------
    PlanError
        `json` does not describe weights, or their places in the plan are wrong.
    """
    weights = []
    end = 0
    for item in json:
        fields = Fields(item, "a weight")
        weight = Weight(
            dtype=DTYPES_BY_NAME[fields.choice("dtype", DTYPES_BY_NAME)],
            shape=fields.integers("shape", 0, LARGEST_MEMORY, _MOST_DIMS),
            offset=fields.integer("offset", 0, LARGEST_MEMORY),
            name=fields.optional_text("name"),
        )
        fields.finish()
        if weight.offset != end:
            raise PlanError(
                "the plan's header is malformed: a weight does not begin where the one before it ends"
            )
        end += aligned(weight.nbytes)
        if end > length:
            raise PlanError("the plan's header is malformed: a weight ends outside the plan")
        weights.append(weight)
    if end != length:
        raise PlanError(
            f"the plan's header is malformed: it describes {end} bytes of weights, and the plan has {length}"
        )
    names = [weight.name for weight in weights if weight.name is not None]
    if len(set(names)) != len(names):
        raise PlanError("the plan's header is malformed: two weights have the same name")
    return tuple(weights)
