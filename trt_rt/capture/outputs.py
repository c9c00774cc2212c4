"""The outputs of a captured program, and the tensors that callers get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trt_rt._core.autograd_modes import in_inference_mode
from trt_rt._core.dlpack import can_view, view_of
from trt_rt.capture.static_inputs import copy_together
from trt_rt.errors import ExecutionError

__all__ = ["ProgramOutputs"]


class ProgramOutputs:
    """The static outputs of one captured program.

    Parameters
    ----------
    result : object
        The program's result: tensors in lists, tuples and dicts. Objects that are not tensors are the same
        in every call.

    Raises
    ------
    ExecutionError
        If a tensor is sparse.
    """

    def __init__(self, result: Any) -> None:
        leaves, self._structure = pytree.tree_flatten(result)
        self._leaves = leaves
        self._is_tensor = isinstance(result, torch.Tensor)
        self._positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self._is_flat = type(result) is tuple and len(result) == len(self._positions) == len(leaves) != 1
        self._tensors: list[torch.Tensor] = [leaves[position] for position in self._positions]
        for tensor in self._tensors:
            if tensor.layout is not torch.strided:
                raise ExecutionError(
                    f"a program that is run as one CUDA graph returned a tensor of layout {tensor.layout}, "
                    "and a graph writes dense tensors only. Return it with .to_dense(), or use "
                    "whole_graph=False."
                )
        self._views = [_View(tensor) for tensor in self._tensors]
        self._ring: list[list[_View]] = []
        self._turn = 0

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The static tensors, in the order of the leaves of the program's result."""
        return tuple(self._tensors)

    @property
    def assemble(self) -> Callable[[Sequence[torch.Tensor]], Any] | None:
        """A function from tensors to the program's result; None if that is a tensor or a tuple of tensors."""
        return None if self._is_tensor or self._is_flat else self._assembled

    def matches(self, result: Any) -> bool:
        """Return whether a result differs from the first one only in the values of tensors.

        On a CPU each call runs the program, and its results may differ: its Python code may depend on
        values, and the values of a shape tensor decide on shapes.
        """
        leaves, structure = pytree.tree_flatten(result)
        return structure == self._structure and all(map(_is_like, leaves, self._leaves))

    def take(self, result: Any) -> None:
        """Copy the tensors of a run's result to the static outputs, unless they are the static outputs."""
        leaves = [result] if self._is_tensor else pytree.tree_leaves(result)
        sources, targets = [], []
        for position, target in zip(self._positions, self._tensors, strict=True):
            if leaves[position].data_ptr() != target.data_ptr():
                sources.append(leaves[position])
                targets.append(target)
        # Only inference mode may write into tensors that were made under it.
        in_inference_mode(True, partial(copy_together, targets, sources))

    def fresh(self) -> Any:
        """Return the result in new tensors, for the current stream."""
        values = [torch.empty_like(tensor) for tensor in self._tensors]
        copy_together(values, self._tensors)
        return self._assembled(values)

    def pre_allocated(self, buffers: int) -> Any:
        """Return the result in the static outputs, or, if `buffers` > 1, in one of that many sets in turn."""
        if buffers == 1:
            return self._assembled([view.get() for view in self._views])
        self._turn %= buffers
        if self._turn == len(self._ring):
            self._ring.append(in_inference_mode(False, self._new_views))
        views = self._ring[self._turn]
        self._turn += 1
        copy_together([view.tensor for view in views], self._tensors)
        return self._assembled([view.get() for view in views])

    def _new_views(self) -> list[_View]:
        return [_View(torch.empty_like(tensor)) for tensor in self._tensors]

    def _assembled(self, values: Sequence[torch.Tensor]) -> Any:
        if self._is_tensor:
            return values[0]
        leaves = list(self._leaves)
        for position, value in zip(self._positions, values, strict=True):
            leaves[position] = value
        return pytree.tree_unflatten(leaves, self._structure)


def _is_like(leaf: Any, recorded: Any) -> bool:
    if isinstance(recorded, torch.Tensor):
        return (
            isinstance(leaf, torch.Tensor)
            and leaf.shape == recorded.shape
            and leaf.dtype == recorded.dtype
            and leaf.layout == recorded.layout
        )
    return leaf is recorded or (type(leaf) is type(recorded) and bool(leaf == recorded))


class _View:
    """The view of a static tensor that callers get, so that they cannot free or resize its memory.

    A tensor of which there is no such view is detached instead.

    Parameters
    ----------
    tensor : torch.Tensor
        The static tensor. Callers never get it.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self._address = tensor.data_ptr()
        self._is_plain = tensor.is_contiguous() and tensor.numel() != 0 and can_view(tensor.dtype)
        self._view: torch.Tensor | None = None

    def get(self) -> torch.Tensor:
        """Return the last view, or a new one if a caller has altered it in place (``resize_``, ``set_``)."""
        view = self._view
        if (
            view is None
            or view.data_ptr() != self._address
            or view.shape != self.tensor.shape
            or view.stride() != self.tensor.stride()
            or view.requires_grad
        ):
            view = self._view = view_of(self.tensor) if self._is_plain else self.tensor.detach()
        return view
