"""The result that a plan declares for a layer, and the check of the actual result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt.errors import ExecutionError
from trt_rt.reference.dtypes import DTYPES_BY_NAME
from trt_rt.reference.fields import Fields

__all__ = ["MOST_DIMS", "Result", "decode_result", "encode_result"]

MOST_DIMS = 64
"""The most dimensions of a tensor inside a network; PyTorch's kernels know no more."""


@dataclass(frozen=True)
class Result:
    """The tensor that a layer makes. A dimension of -1 depends on shapes or values at run time."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    def check(self, value: object) -> None:
        """Check that `value` is this tensor.

        Raises
        ------
        ExecutionError
            It is no tensor, or a tensor of another dtype or shape.
        """
        if not isinstance(value, torch.Tensor):
            raise ExecutionError(f"the result is no tensor but {type(value).__name__}")
        shape = value.shape
        if (
            value.dtype != self.dtype
            or len(shape) != len(self.shape)
            or any(known not in (-1, size) for known, size in zip(self.shape, shape, strict=True))
        ):
            raise ExecutionError(
                f"the result is {value.dtype}{list(shape)}, and the plan declares "
                f"{self.dtype}{list(self.shape)}"
            )


def encode_result(result: Result | None) -> dict[str, Any] | None:
    """Return a declaration as JSON."""
    return None if result is None else {"dtype": dtype_name(result.dtype), "shape": result.shape}


def decode_result(json: object) -> Result | None:
    """Read and check a declaration.

    Raises
    ------
    PlanError
        `json` does not describe a tensor.
    """
    if json is None:
        return None
    fields = Fields(json, "a result of a layer")
    result = Result(
        dtype=DTYPES_BY_NAME[fields.choice("dtype", DTYPES_BY_NAME)],
        shape=fields.integers("shape", -1, 2**62, MOST_DIMS),
    )
    fields.finish()
    return result
