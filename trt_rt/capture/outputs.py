"""The outputs of a captured program, and the tensors that callers get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trt_rt._core.dlpack import can_view, view_of
from trt_rt.capture.static_inputs import copy_together
from trt_rt.errors import ExecutionError

__all__ = ["ProgramOutputs"]


class ProgramOutputs:
    """The static outputs of one captured program.

    Parameters
    ----------
    result : object
        What the program returned: tensors, in lists, tuples and dicts; anything else is the same at every
        call.

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
        """The static tensors, in the order of the leaves of what the program returned."""
        return tuple(self._tensors)

    @property
    def assemble(self) -> Callable[[Sequence[torch.Tensor]], Any] | None:
        """Builds what the program returns from tensors; None where it is the tensor, or the tuple of them."""
        return None if self._is_tensor or self._is_flat else self._assembled

    def matches(self, result: Any) -> bool:
        """Whether a run returned what the recorded run did, but for the values in tensors.

        It need not, on a CPU, where each call runs the program: its Python code may look at values, and a
        shape tensor, whose values decide on shapes, cannot be told from other tensors.
        """
        leaves, structure = pytree.tree_flatten(result)
        return structure == self._structure and all(map(_is_like, leaves, self._leaves))

    def take(self, result: Any) -> None:
        """Copy what a run returned to the static outputs, where it is not there already."""
        leaves = [result] if self._is_tensor else pytree.tree_leaves(result)
        sources, targets = [], []
        for position, target in zip(self._positions, self._tensors, strict=True):
            if leaves[position].data_ptr() != target.data_ptr():
                sources.append(leaves[position])
                targets.append(target)
        with torch.inference_mode():  # which may write into tensors that were made under it
            copy_together(targets, sources)

    def fresh(self) -> Any:
        """New tensors with the values of the static outputs, for the current stream."""
        values = [torch.empty_like(tensor) for tensor in self._tensors]
        copy_together(values, self._tensors)
        return self._assembled(values)

    def pre_allocated(self, buffers: int) -> Any:
        """The static outputs themselves, or if `buffers` is more than 1 copies in as many sets in turn."""
        if buffers == 1:
            return self._assembled([view.get() for view in self._views])
        self._turn %= buffers
        if self._turn == len(self._ring):
            with torch.inference_mode(False):
                self._ring.append([_View(torch.empty_like(tensor)) for tensor in self._tensors])
        views = self._ring[self._turn]
        self._turn += 1
        copy_together([view.tensor for view in views], self._tensors)
        return self._assembled([view.get() for view in views])

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
    """What callers get of a tensor of ours: they cannot free its memory, where such a view can be had.

    Parameters
    ----------
    tensor : torch.Tensor
        Kept; nobody else has it.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self._address = tensor.data_ptr()
        self._is_plain = tensor.is_contiguous() and tensor.numel() != 0 and can_view(tensor.dtype)
        self._view: torch.Tensor | None = None

    def get(self) -> torch.Tensor:
        """The same view as before, unless a caller has altered it in place (``resize_``, ``set_``)."""
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
