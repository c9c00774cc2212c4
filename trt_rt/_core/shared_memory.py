"""Whether tensors share memory, for programs that write to their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

__all__ = ["memory_of", "overlaps_itself", "share_elements", "shared_pair"]

_MAX_CANDIDATES = 64


def memory_of(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


def shared_pair(tensors: Sequence[torch.Tensor], written: Iterable[int]) -> tuple[int, int] | None:
    """Return the positions of a tensor that is written to and of another one that shares memory with it.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        Of one call.
    written : iterable of int
        Positions of those that are written to.
    """
    memory = [memory_of(tensor) for tensor in tensors]
    if len(set(memory)) == len(memory):
        return None
    for index in written:
        for other, storage in enumerate(memory):
            if other != index and storage == memory[index] and share_elements(tensors[index], tensors[other]):
                return index, other
    return None


def share_elements(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors have bytes in common.

    The answer is exact for tensors of one dtype whose strides are the same, such as the keys and the values
    of one cache, or columns of one matrix. For others it is whether the stretches of memory from their first
    to their last byte overlap: tensors that lie interleaved count as sharing.
    """
    (begin, end), (other_begin, other_end) = _stretch(a), _stretch(b)
    if memory_of(a) != memory_of(b) or not (begin < other_end and other_begin < end):
        return False
    distance, rest = divmod(other_begin - begin, a.element_size())
    if a.dtype is not b.dtype or a.stride() != b.stride() or rest:
        return True
    axes = sorted(zip(a.stride(), a.shape, b.shape, strict=True), reverse=True)
    return _meet(distance, axes)


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Return whether elements may share memory: unless each dimension steps over all smaller ones."""
    end = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= end:
            return tensor.numel() > 0
        end += max(size - 1, 0) * stride
    return False


def _stretch(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses of a tensor's first byte and of the byte after its last."""
    begin = tensor.data_ptr()
    if tensor.numel() == 0:
        return begin, begin
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def _meet(distance: int, axes: Sequence[tuple[int, int, int]]) -> bool:
    """Return whether steps along the axes can make up a distance.

    Two elements are in one place if the differences of their indices, times the strides, add up to the
    distance of the tensors. The difference along an axis is more than minus the other's size, and less than
    the own one's. For each axis only those are tried with which the smaller strides can reach the rest.
    """
    if not axes:
        return distance == 0
    (stride, size, other), rest = axes[0], axes[1:]
    if stride == 0:
        return _meet(distance, rest)
    low = -sum(step * (theirs - 1) for step, _, theirs in rest)
    high = sum(step * (own - 1) for step, own, _ in rest)
    first = max(-(other - 1), -((high - distance) // stride))
    last = min(size - 1, (distance - low) // stride)
    if last - first >= _MAX_CANDIDATES:
        return True
    return any(_meet(distance - steps * stride, rest) for steps in range(first, last + 1))
