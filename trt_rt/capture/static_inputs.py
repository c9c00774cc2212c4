"""Static copies of the callers' tensors, which a captured program reads."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trt_rt._core.autograd_modes import in_inference_mode, without_grad
from trt_rt._core.call import copy_plain
from trt_rt._core.dlpack import view_of
from trt_rt._core.shared_memory import memory_of, overlaps_itself, shared_pair
from trt_rt.errors import ExecutionError, InputValueError

__all__ = ["StaticInputs", "copy_together"]


class StaticInputs:
    """Static copies of the tensors among a call's arguments, allocated for the current stream.

    Parameters
    ----------
    leaves : sequence
        The arguments, flattened.
    structure : TreeSpec
        The structure of the arguments.
    positions : sequence of int
        The leaves that are tensors and change from call to call. Other tensors are copied only once.

    Raises
    ------
    torch.OutOfMemoryError, RuntimeError
        If there is no memory.
    """

    def __init__(self, leaves: Sequence[Any], structure: Any, positions: Sequence[int]) -> None:
        self._structure = structure
        self._positions = tuple(positions)
        self._leaves = list(leaves)
        in_inference_mode(False, partial(without_grad, self._own_tensors))
        self._tensors = [self._leaves[position] for position in self._positions]
        # Kept here too: a program that assigns to the ``data`` of an argument lets go of its memory.
        self._storages = [tensor.untyped_storage() for tensor in self._tensors]
        self._layouts = [_layout(tensor) for tensor in self._tensors]
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]
        self._versions: list[int] = []
        self._written: list[int] = []

    def _own_tensors(self) -> None:
        for position, leaf in enumerate(self._leaves):
            if position in self._positions:
                self._leaves[position] = _fixed(torch.empty_like(leaf, requires_grad=False))
            elif isinstance(leaf, torch.Tensor):
                self._leaves[position] = leaf.detach().clone()

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments, with static tensors in place of the caller's."""
        args, kwargs = pytree.tree_unflatten(self._leaves, self._structure)
        return args, kwargs

    @property
    def for_callers(self) -> tuple[Any, ...]:
        """The positional arguments, with other tensors over the memory of the static ones.

        Whatever a caller makes of these tensors, those that the program reads stay as they are.
        """
        args, _ = self.arguments
        views: tuple[Any, ...] = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, args)
        return views

    def refuse_replaced(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """Refuse a program that has replaced its arguments, or given them other memory or shapes.

        A replay does not run the program's Python code, so later callers would not get these objects, nor
        would their tensors change.

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
        if [_layout(tensor) for tensor in self._tensors] != self._layouts:
            raise ExecutionError(
                "a program that is run as one CUDA graph gives one of its arguments another shape or other "
                "memory, for example by resize_() or by an assignment to .data, and a graph cannot do that "
                "for later calls. Write into the tensor in place, return a new one, or use "
                "whole_graph=False."
            )

    def fill(self, leaves: Sequence[Any]) -> None:
        """Copy a call's tensors to the static ones, unless they are the static ones."""
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
        """Remember the versions of the static inputs, to find those that PyTorch writes into."""
        self._versions = [tensor._version for tensor in self._tensors]

    def note_writes(self, memory: Iterable[int]) -> None:
        """Remember the inputs that PyTorch wrote into since `watch`, or that lie in the given memory.

        Parameters
        ----------
        memory : iterable of int
            `memory_of` each tensor that engines wrote into.
        """
        written = set(memory)
        self._written = [
            index
            for index, tensor in enumerate(self._tensors)
            if tensor._version != self._versions[index] or memory_of(tensor) in written
        ]

    def refuse_shared_memory(self, leaves: Sequence[Any]) -> None:
        """Refuse a call with arguments that share memory, or overlap themselves, where the program writes.

        Each argument has a static copy of its own, in which no elements share memory. A write to one copy, or
        to one element of it, does not change the other.

        Raises
        ------
        InputValueError
            The message gives the arguments' positions among all leaves.
        """
        if not self._written:
            return
        for index in self._written:
            if overlaps_itself(leaves[self._positions[index]]):
                raise InputValueError(
                    "a program that is run as one CUDA graph writes into its argument "
                    f"{self._positions[index]}, whose elements overlap each other in memory: the graph has a "
                    "copy without overlaps. Pass a clone(), or leave enable_cudagraphs for this program."
                )
        pair = shared_pair([leaves[position] for position in self._positions], self._written)
        if pair is not None:
            index, other = (self._positions[number] for number in pair)
            raise InputValueError(
                f"a program that is run as one CUDA graph writes into its argument {index}, which shares "
                f"memory with argument {other}: the graph has a copy of each. Pass memory of its own, or "
                "leave enable_cudagraphs for this program."
            )

    def write_back(self, leaves: Sequence[Any]) -> None:
        """Copy the static inputs that the program wrote into back to the caller's tensors."""
        sources, targets = [], []
        for index in self._written:
            target = leaves[self._positions[index]]
            if target.data_ptr() != self._addresses[index]:
                sources.append(self._tensors[index])
                targets.append(target)
        _copy_by_pytorch(targets, sources)


def _fixed(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor like a new one, over its memory, which nobody can free or resize through it."""
    storage = tensor.untyped_storage()
    if not storage.nbytes() or tensor.is_quantized:
        return tensor
    memory = view_of(torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage))
    fixed = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return fixed.set_(memory.untyped_storage(), 0, tensor.shape, tensor.stride())


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def copy_together(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy tensors on the current stream. The sources or the targets must be static tensors."""
    if not copy_plain(targets, sources):
        _copy_by_pytorch(targets, sources)


def _copy_by_pytorch(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy with as few kernels as PyTorch can. PyTorch counts the versions of the targets up."""
    if len(targets) == 1:
        targets[0].copy_(sources[0])
    elif targets:
        torch._foreach_copy_(targets, sources)
