"""The names of dtypes in files and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trt_rt._core.dynamo import hide_from_dynamo

if TYPE_CHECKING:
    import torch

__all__ = ["dtype_name"]


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without its module, such as ``float32``."""
    return str(dtype).removeprefix("torch.")


hide_from_dynamo(globals())
