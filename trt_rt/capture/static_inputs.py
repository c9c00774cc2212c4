"""Tensors that a captured program reads in place of its callers'."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trt_rt._core.call import copy_plain
from trt_rt.errors import ExecutionError, InputValueError

__all__ = ["StaticInputs", "copy_together", "memory_of"]


class StaticInputs:
    """Static copies of the tensors among a call's arguments, made for the current stream.

    Parameters
    ----------
    leaves : sequence
        The arguments, flattened.
    structure : TreeSpec
        How to put them together again.
    positions : sequence of int
        Which leaves are tensors that change from call to call. Other tensors are copied once and for all.

    Raises
    ------
    torch.OutOfMemoryError, RuntimeError
        If there is no memory.
    """

    def __init__(self, leaves: Sequence[Any], structure: Any, positions: Sequence[int]) -> None:
        self._structure = structure
        self._positions = tuple(positions)
        self._leaves = list(leaves)
        with torch.inference_mode(False), torch.no_grad():
            for position, leaf in enumerate(leaves):
                if position in self._positions:
                    self._leaves[position] = torch.empty_like(leaf, requires_grad=False)
                elif isinstance(leaf, torch.Tensor):
                    self._leaves[position] = leaf.detach().clone()
        self._tensors = [self._leaves[position] for position in self._positions]
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]
        self._versions: list[int] = []
        self._written: list[int] = []

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with static tensors in place of the callers'."""
        args, kwargs = pytree.tree_unflatten(self._leaves, self._structure)
        return args, kwargs

    def refuse_replaced(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """Refuse a program that has put other objects into its list or dict arguments.

        A replay runs none of the program's Python code, so later callers would not find them.

        Parameters
        ----------
        arguments : tuple of (tuple, dict)
            `arguments`, after the program ran with them.

        Raises
        ------
        ExecutionError
        """
        leaves, structure = pytree.tree_flatten(arguments)
        if structure != self._structure or any(map(operator.is_not, leaves, self._leaves)):
            raise ExecutionError(
                "a program that is run as one CUDA graph replaces items of a list or dict that is its "
                "argument, and a graph cannot do that for later calls. Write into the tensors in place, "
                "return the new ones, or use whole_graph=False."
            )

    def fill(self, leaves: Sequence[Any]) -> None:
        """Copy a call's tensors to the static ones, those that are the static ones excepted."""
        values = [leaves[position] for position in self._positions]
        sources, targets = [], []
        for value, target, address in zip(values, self._tensors, self._addresses, strict=True):
            if value.data_ptr() != address:
                sources.append(value)
                targets.append(target)
        copy_together(targets, sources)

    @property
    def are_written(self) -> bool:
        """Whether the program writes into an argument."""
        return bool(self._written)

    def watch(self) -> None:
        """Begin to notice which static inputs PyTorch writes into."""
        self._versions = [tensor._version for tensor in self._tensors]

    def note_writes(self, memory: Iterable[int]) -> None:
        """Remember those that were written into since `watch`, or lie in one of the given `memory_of`."""
        written = set(memory)
        self._written = [
            index
            for index, tensor in enumerate(self._tensors)
            if tensor._version != self._versions[index] or memory_of(tensor) in written
        ]

    def refuse_shared_memory(self, leaves: Sequence[Any]) -> None:
        """Refuse a call whose arguments share memory that the program writes into.

        Each has a copy of its own, so that a write through one would not be seen through the other.

        Raises
        ------
        InputValueError
            Naming the arguments by their places among all leaves.
        """
        if not self._written:
            return
        memory = [memory_of(leaves[position]) for position in self._positions]
        if len(set(memory)) == len(memory):
            return
        for index in self._written:
            for other, storage in enumerate(memory):
                tensors = leaves[self._positions[index]], leaves[self._positions[other]]
                if other != index and storage == memory[index] and _may_overlap(*tensors):
                    raise InputValueError(
                        "a program that is run as one CUDA graph writes into its argument "
                        f"{self._positions[index]}, which shares memory with argument "
                        f"{self._positions[other]}: the graph has a copy of each. Pass memory of its own, or "
                        "leave enable_cudagraphs for this program."
                    )

    def write_back(self, leaves: Sequence[Any]) -> None:
        """Let the caller see what the program has written into its arguments."""
        sources, targets = [], []
        for index in self._written:
            target = leaves[self._positions[index]]
            if target.data_ptr() != self._addresses[index]:
                sources.append(self._tensors[index])
                targets.append(target)
        _copy_by_pytorch(targets, sources)


def memory_of(tensor: torch.Tensor) -> int:
    """Where a tensor's storage begins."""
    return tensor.untyped_storage().data_ptr()


def _may_overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the stretches of memory meet that two tensors of one storage lie in."""
    (begin, end), (other_begin, other_end) = _stretch(a), _stretch(b)
    return begin < other_end and other_begin < end


def _stretch(tensor: torch.Tensor) -> tuple[int, int]:
    """Addresses of a tensor's first byte and of the one after its last; equal if it has no elements."""
    begin = tensor.data_ptr()
    if tensor.numel() == 0:
        return begin, begin
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def copy_together(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy tensors of ours, or to tensors of ours, on the current stream."""
    if not copy_plain(targets, sources):
        _copy_by_pytorch(targets, sources)


def _copy_by_pytorch(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """With as few kernels as PyTorch can. It notes that the targets were written into."""
    if len(targets) == 1:
        targets[0].copy_(sources[0])
    elif targets:
        torch._foreach_copy_(targets, sources)
