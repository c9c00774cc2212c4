"""The arguments of a program's calls, and the keys that choose the graph of each call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trt_rt.errors import InputTypeError, InputValueError

__all__ = ["ProgramInputs", "flatten"]

_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)

# A CUDA graph has the values of CPU tensors baked in. Every call compares them, so there may be only a few.
_MOST_BAKED_VALUES = 256


def flatten(arguments: Any) -> tuple[list[Any], Hashable]:
    """Return the leaves of nested arguments, and their structure.

    Parameters
    ----------
    arguments : tuple of (tuple, dict)
        Positional and keyword arguments: lists, tuples and dicts of anything.

    Returns
    -------
    tuple of (list, hashable)
    """
    leaves, structure = pytree.tree_flatten(arguments)
    return leaves, structure


class ProgramInputs:
    """The rule that tells which calls of a program one graph serves.

    Parameters
    ----------
    device : torch.device
        The program's device. Tensors on it are copied to static ones. A graph has all other arguments baked
        in.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def key(self, leaves: Sequence[Any], structure: Hashable) -> Hashable:
        """Return a key that is equal for calls that one graph serves.

        The key has the shape, dtype and strides of tensors on the program's device. For a program on a GPU it
        has the values of tensors on the CPU. It has the type and value of everything else.

        Raises
        ------
        InputTypeError, InputValueError
            If an argument cannot be compared with others: an object that is neither hashable nor a plain,
            dense tensor, or a CPU tensor with many values for a program on a GPU.
        """
        return (structure, *[self._key_of(leaf) for leaf in leaves])

    def is_static(self, leaf: Any) -> bool:
        """Return whether a leaf is a tensor that a graph reads from a static copy."""
        return isinstance(leaf, torch.Tensor) and leaf.device.type == self._device.type

    def _key_of(self, leaf: Any) -> Hashable:
        if isinstance(leaf, torch.Tensor):
            return self._key_of_tensor(leaf)
        if isinstance(leaf, float):
            return float, leaf.hex()  # as text, NaN equals itself, and -0.0 differs from 0.0
        try:
            hash(leaf)
        except TypeError:
            raise InputTypeError(
                f"a program that is run as one CUDA graph was called with a {type(leaf).__name__}, which "
                "cannot be compared with that of another call. Pass tensors, numbers and strings."
            ) from None
        return type(leaf), leaf

    def _key_of_tensor(self, tensor: torch.Tensor) -> Hashable:
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            raise InputTypeError(
                "a program that is run as one CUDA graph needs tensors with memory of their own; a "
                "torch.func transform (grad, jvp, vmap) has wrapped one of its arguments. Call it outside of "
                "the transform, or leave enable_cudagraphs."
            )
        if type(tensor) not in _PLAIN_TYPES or tensor.layout is not torch.strided:
            raise InputTypeError(
                f"a program that is run as one CUDA graph takes dense torch.Tensors; got a "
                f"{type(tensor).__name__} of layout {tensor.layout}."
            )
        kind = (tensor.dtype, tensor.shape, _strides(tensor), tensor.device)
        if self.is_static(tensor):
            return kind
        if tensor.numel() > _MOST_BAKED_VALUES:
            raise InputValueError(
                f"a program on {self._device} that is run as one CUDA graph was called with a tensor on "
                f"{tensor.device} of {tensor.numel()} elements. Its values would be baked into it, which "
                f"is allowed for up to {_MOST_BAKED_VALUES}: move it to {self._device} before the call."
            )
        return kind, tuple(tensor.flatten().tolist())


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return strides that are equal for equal layouts: () if contiguous, 0 for dimensions of size 1."""
    if tensor.is_contiguous():
        return ()
    return tuple(
        0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
