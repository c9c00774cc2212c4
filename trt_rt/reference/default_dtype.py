"""Calls operators as if PyTorch's default dtype were the one that the network was built with.

``torch.set_default_dtype`` sets the floating-point type that operators give to integers and to Python's
numbers. It holds for the whole process, so an engine must neither depend on it nor change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trt_rt.reference.operators import Operator

__all__ = ["call_with_default_dtype"]

_CHOICES = frozenset({"aten.where.Scalar", "aten.where.ScalarSelf", "aten.where.ScalarOther"})

_NOT_CONVERTED = frozenset({"condition", "mask", "index", "indices"})
"""Parameters whose integers and booleans choose elements and are not computed with."""


def call_with_default_dtype(
    operator: Operator,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    default: torch.dtype,
    declared: torch.dtype | None,
) -> Any:
    """Call an operator while another default dtype is set than `default`.

    Parameters
    ----------
    operator : Operator
        What to call.
    args, kwargs
        Its arguments.
    default : torch.dtype
        The default dtype that the network was built with.
    declared : torch.dtype or None
        The dtype of the result, where the plan declares one.
    """
    if operator.is_comparison and isinstance(args[1], float):
        args = [_convert(args[0], default), *args[1:]]
    result = operator.function(*args, **kwargs)
    if declared is None or not isinstance(result, torch.Tensor) or result.dtype == declared:
        return result
    if not (_is_inexact(result.dtype) and _is_inexact(declared)):
        return result
    # The operator has turned integers or numbers into the wrong floating-point type: it is given the right
    # one.
    names = [parameter.name for parameter in operator.parameters]
    converted = [
        value if name in _NOT_CONVERTED else _convert(value, declared)
        for name, value in zip(names, args, strict=False)
    ]
    if operator.name in _CHOICES:
        # They give the default dtype to the numbers themselves.
        condition = args[0]
        numbers = [
            value
            if isinstance(value, torch.Tensor)
            else torch.full((), value, dtype=declared, device=condition.device)
            for value in converted[1:]
        ]
        return torch.ops.aten.where.self(condition, *numbers).to(declared)
    return operator.function(*converted, **kwargs).to(declared)


def _is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _convert(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor) and not _is_inexact(value.dtype):
        return value.to(dtype)
    return value
