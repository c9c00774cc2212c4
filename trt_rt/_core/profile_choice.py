"""The optimization profile that the shapes of a call need."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.refused_tensors import named
from trt_rt.errors import InputValueError

__all__ = ["check_static_dimensions", "choose_profile"]


def choose_profile(
    inputs: Sequence[IOTensor],
    shapes: Sequence[tuple[int, ...]],
    values: Sequence[tuple[int, ...] | None],
    current: int,
    forced: int = -1,
) -> int:
    """Return the profile for given shapes: the current one if it admits them, else the first that does.

    Parameters
    ----------
    inputs : sequence of IOTensor
        The engine's inputs.
    shapes : sequence of tuple of int
        The shape of each.
    values : sequence of tuple of int or None
        The values of each shape tensor, and None for each other input.
    current : int
        The profile in use.
    forced : int, optional
        The only profile that may be chosen, or -1 for any profile.

    Raises
    ------
    InputValueError
        No profile admits the shapes. The message names the first tensor that no profile admits, and what each
        profile allows.
    """
    for tensor, shape in zip(inputs, shapes, strict=True):
        check_static_dimensions(tensor, shape)
    ranges = [
        (tensor, shape if value is None else value)
        for tensor, shape, value in zip(inputs, shapes, values, strict=True)
        if tensor.profiles
    ]
    count = max((len(tensor.profiles) for tensor, _ in ranges), default=1)
    for index in (forced,) if forced >= 0 else chain((current,), range(count)):
        if all(tensor.profiles[index].admits(sizes) for tensor, sizes in ranges):
            return index
    if forced >= 0:
        raise InputValueError(_not_in_profile(ranges, forced))
    raise InputValueError(_no_profile(ranges, count))


def check_static_dimensions(tensor: IOTensor, shape: tuple[int, ...]) -> None:
    """Raise InputValueError for a shape of another rank, or with another size than a fixed one."""
    fits = len(shape) == len(tensor.shape) and all(
        wanted in (-1, size) for wanted, size in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise InputValueError(f"{named(tensor)}: got shape {list(shape)}, which does not fit.")


def _not_in_profile(ranges: Sequence[tuple[IOTensor, tuple[int, ...]]], forced: int) -> str:
    tensor, sizes = next((t, s) for t, s in ranges if not t.profiles[forced].admits(s))
    what = "values" if tensor.is_shape_tensor else "shape"
    return (
        f"{named(tensor)}: got {what} {list(sizes)}, but optimization profile {forced}, which was chosen "
        f"for this module, admits {tensor.profiles[forced]}. Choose another, or 'auto'."
    )


def _no_profile(ranges: Sequence[tuple[IOTensor, tuple[int, ...]]], count: int) -> str:
    for tensor, sizes in ranges:
        if not any(profile.admits(sizes) for profile in tensor.profiles):
            what = "values" if tensor.is_shape_tensor else "shape"
            allowed = "; ".join(f"profile {i}: {profile}" for i, profile in enumerate(tensor.profiles))
            return (
                f"{named(tensor)}: got {what} {list(sizes)}, outside what the engine was built for "
                f"({allowed})."
            )
    got = ", ".join(f"{tensor.name!r} {list(sizes)}" for tensor, sizes in ranges)
    return f"no single one of the {count} optimization profiles admits these inputs together: {got}."


hide_from_dynamo(globals())
