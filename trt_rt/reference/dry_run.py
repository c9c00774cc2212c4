"""Finds out how large the result of a layer will be before the layer runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trt_rt.reference.memory_limit import check_tensors
from trt_rt.reference.program import Step

__all__ = ["META", "dry_run"]

META = torch.device("meta")


def dry_run(step: Step, operands: Mapping[int, Any], largest: int | None = None) -> None:
    """Run a layer on PyTorch's meta device, where nothing is computed, and check the size of its result.

    Parameters
    ----------
    step : Step
        The layer.
    operands : mapping
        The values that it reads, by number.
    largest : int, optional
        Bytes that a tensor of the result may have; the memory of the machine by default.

    Raises
    ------
    ExecutionError
        The result is too large.
    """
    try:
        result = step.call({index: _to_meta(value) for index, value in operands.items()}, META, META)
    except Exception:
        # PyTorch cannot tell the result of this operator, or the layer is wrong, and its own run says how.
        return
    check_tensors(result, largest)


def _to_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(META)
    if isinstance(value, (list, tuple)):
        return [_to_meta(element) for element in value]
    return value
