"""Stand-ins for operators that a plan, or a program in a file, could misuse.

Each checks what the operator itself does not. A stand-in runs instead of the operator of its name, also on
the meta device and while PyTorch traces, where a tensor has no values to check.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from trt_rt.reference.memory_limit import check_pieces, check_size

__all__ = ["BOUNDED_SPLITS", "PORTABLE_VIEWS", "SAFE_NUMBER_FUNCTIONS", "SAFE_OPERATORS", "is_traced"]

_aten = torch.ops.aten

_LARGEST_EXPONENT = 64
_MOST_DIGITS = 64


def _power(base: float, exponent: float) -> Any:
    # Integers have no bound in Python: 9**9**9 would never end.
    if abs(exponent) > _LARGEST_EXPONENT:
        raise OverflowError(f"the exponent {exponent} is out of range")
    return base**exponent


def _round(number: float, digits: int | None = None) -> Any:
    # round(8, -2**31) computes 10**2**31.
    if digits is not None and abs(digits) > _MOST_DIGITS:
        raise OverflowError(f"{digits} digits are out of range")
    return round(number, digits)


SAFE_NUMBER_FUNCTIONS: dict[str, Callable[..., Any]] = {"operator.pow": _power, "builtins.round": _round}
"""Functions of numbers that need bounds, by the names that plans give them."""


def _has_values(tensor: torch.Tensor) -> bool:
    return not (is_traced() or tensor.is_meta or isinstance(tensor, FakeTensor))


def is_traced() -> bool:
    """Whether PyTorch records this thread's operators, so that a check of values would be recorded too."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def _one_hot(indices: torch.Tensor, num_classes: int = -1) -> Any:
    if num_classes < 0 and _has_values(indices) and indices.numel():
        check_size(indices.numel() * (max(int(indices.max()), 0) + 1), 8)
    return _aten.one_hot.default(indices, num_classes)


def _repeat_interleave(repeats: torch.Tensor, *, output_size: int | None = None) -> Any:
    _check_repeats(repeats, 1)
    return _aten.repeat_interleave.Tensor(repeats, output_size=output_size)


def _repeat_interleave_self(
    tensor: torch.Tensor, repeats: torch.Tensor, dim: int | None = None, *, output_size: int | None = None
) -> Any:
    size = 1 if dim is None or not tensor.dim() else max(tensor.size(dim), 1)
    repetitions = max(tensor.numel(), 1) if dim is None or repeats.numel() == 1 else 1
    _check_repeats(repeats, repetitions * max(tensor.numel() // size, 1))
    return _aten.repeat_interleave.self_Tensor(tensor, repeats, dim, output_size=output_size)


def _check_repeats(repeats: torch.Tensor, elements: int) -> None:
    if not _has_values(repeats) or not repeats.numel():
        return
    if repeats.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"the repeats must be integers, not {repeats.dtype}")
    check_size(int(repeats.max()) * repeats.numel() * elements, 8)


def _unique_dim(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    # It sorts rows with a comparison that NaNs make inconsistent, and std::sort then leaves the array.
    if _has_values(tensor) and tensor.is_floating_point() and bool(tensor.isnan().any()):
        raise ValueError("the rows of a tensor with NaNs cannot be ordered")
    return _aten.unique_dim.default(tensor, *args, **kwargs)


def _weight_norm(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the operands of the fused kernel, which reads the norms as it reads the weights."""

    def normalize(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> Any:
        if not is_traced():
            check(v, g, dim)
        return function(v, g, dim)

    def check(v: torch.Tensor, g: torch.Tensor, dim: int) -> None:
        if v.dtype != g.dtype or not v.is_floating_point() or not v.numel():
            raise TypeError(f"weights of {v.dtype}{list(v.shape)} cannot have norms of {g.dtype}")
        norms = v.size(dim) if dim in (0, v.dim() - 1) else g.numel()
        if g.numel() != norms:
            raise ValueError(f"weights of shape {list(v.shape)} have {norms} norms, not {g.numel()}")

    return normalize


def _pieces(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check into how many tensors an operator splits one by a size."""

    def split(tensor: torch.Tensor, split_size: int, dim: int = 0) -> Any:
        if split_size > 0 and tensor.dim():
            check_pieces(math.ceil(tensor.size(dim) / split_size))
        return function(tensor, split_size, dim)

    return split


def _sections(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check into how many tensors an operator splits one by their number."""

    def split(tensor: torch.Tensor, sections: int, *args: Any, **kwargs: Any) -> Any:
        check_pieces(sections)
        return function(tensor, sections, *args, **kwargs)

    return split


def _slices(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check into how many tensors an operator takes one apart."""

    def unbind(tensor: torch.Tensor, dim: int = 0) -> Any:
        if tensor.dim():
            check_pieces(tensor.size(dim))
        return function(tensor, dim)

    return unbind


def _empty(*args: Any, **kwargs: Any) -> Any:
    return _aten.empty.memory_format(*args, **kwargs).zero_()


PORTABLE_VIEWS: dict[str, Callable[..., Any]] = {
    # A view needs the strides that its operand had when the network was exported. Kernels for other devices,
    # and for the meta device, return others.
    "aten.view.default": _aten.reshape.default,
    "aten._unsafe_view.default": _aten.reshape.default,
}
"""Operators that work on every device, by the names of those that do not."""

SAFE_OPERATORS: dict[str, Callable[..., Any]] = {
    # Memory that nothing has been written to would show what the process had there before.
    "aten.empty.memory_format": _empty,
    "aten.empty_like.default": _aten.zeros_like.default,
    "aten.new_empty.default": _aten.new_zeros.default,
    # The sizes of these results depend on values, so no inference of shapes bounds them.
    "aten.one_hot.default": _one_hot,
    "aten.repeat_interleave.Tensor": _repeat_interleave,
    "aten.repeat_interleave.self_Tensor": _repeat_interleave_self,
    "aten.unique_dim.default": _unique_dim,
    "aten._weight_norm.default": _weight_norm(_aten._weight_norm.default),
    "aten._weight_norm_interface.default": _weight_norm(_aten._weight_norm_interface.default),
}
"""Stand-ins by the operators' names."""

BOUNDED_SPLITS: dict[str, Callable[..., Any]] = {
    **{
        f"aten.{name}": _pieces(operator.attrgetter(name)(_aten))
        for name in ("split.Tensor", "split_copy.Tensor", "unsafe_split.Tensor")
    },
    **{
        f"aten.{name}": _sections(operator.attrgetter(name)(_aten))
        for name in (
            "chunk.default",
            "unsafe_chunk.default",
            "tensor_split.sections",
            "hsplit.int",
            "vsplit.int",
            "dsplit.int",
        )
    },
    **{
        f"aten.{name}": _slices(operator.attrgetter(name)(_aten))
        for name in ("unbind.int", "unbind_copy.int")
    },
}
"""Stand-ins for operators the number of whose results depends on sizes. They bound memory only."""
