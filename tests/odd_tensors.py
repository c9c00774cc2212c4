"""Tensors that ordinary code seldom makes."""

from __future__ import annotations

from typing import Any

import torch

__all__ = [
    "DerivedMeaning",
    "DerivedWrapper",
    "Function",
    "Meaning",
    "Plain",
    "Wrapper",
    "of_kind",
    "shifted",
]


def shifted(*shape: int) -> torch.Tensor:
    """Contiguous, and one element off any alignment."""
    count = torch.Size(shape).numel()
    return torch.empty(count + 1)[1:].view(shape)


class Plain(torch.Tensor):
    """A subclass without behaviour of its own."""


class Function(torch.Tensor):
    """A subclass that lets nobody call anything."""

    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no function for you")


class Wrapper(torch.Tensor):
    """A subclass without memory."""

    @staticmethod
    def __new__(cls, wrapped: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, wrapped.shape, dtype=wrapped.dtype)

    def __init__(self, wrapped: torch.Tensor) -> None:
        self.wrapped = wrapped

    @classmethod
    def __torch_dispatch__(cls, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("no operator for you")


class DerivedWrapper(Wrapper):
    """Has its ``__torch_dispatch__`` from its base."""


class Meaning(torch.Tensor):
    """A subclass with memory that means something else: its values are to be scaled by ten."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError("no operator for you")


class DerivedMeaning(Meaning):
    """Has its ``__torch_dispatch__`` from its base."""


def of_kind(kind: type[torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    return torch.Tensor._make_subclass(kind, tensor)
