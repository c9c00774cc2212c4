"""Makes optimization profiles from the user's request and the ranges that torch.export found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from trt_rt.errors import CompileError
from trt_rt.reference.dimensions import Dimensions
from trt_rt.reference.io_tensors import InputTensor
from trt_rt.reference.profiles import Profile, Range

__all__ = ["build_profiles"]

Wanted = Mapping[str, Sequence[Sequence[int]]]


def build_profiles(
    wanted: Sequence[Wanted] | None,
    inputs: Sequence[InputTensor],
    examples: Sequence[torch.Tensor],
    dimensions: Dimensions,
) -> tuple[Profile, ...]:
    """Return the profiles, at least one.

    Parameters
    ----------
    wanted : sequence of mapping, or None
        As ``build`` takes them.
    inputs, examples
        The inputs and their example values.
    dimensions : Dimensions
        Their symbolic sizes.

    Raises
    ------
    CompileError
        A profile names something that is no input, leaves out a dynamic input, or is wider than export
        allows.
    """
    if wanted is not None and not wanted:
        raise CompileError(
            "profiles is empty: an engine has at least one; None derives it from dynamic_shapes"
        )
    names = [tensor.name for tensor in inputs]
    profiles = []
    for index, profile in enumerate([{}] if wanted is None else wanted):
        unknown = sorted(set(profile).difference(names))
        if unknown:
            raise CompileError(f"profile {index} names {unknown}, and the inputs are {names}")
        shapes: list[Range] = []
        values: list[Range | None] = []
        for number, (tensor, example) in enumerate(zip(inputs, examples, strict=True)):
            given = profile.get(tensor.name)
            derived = _derived(number, tensor, example, dimensions)
            if tensor.location == "host":
                shapes.append(derived)
                every = _every_value(tensor, example)
                values.append(every if given is None else _range(given, tensor.name, index, every))
                continue
            if given is None and tensor.is_dynamic and wanted is not None:
                raise CompileError(f"profile {index} needs (min, opt, max) shapes of {tensor.name!r}")
            shapes.append(derived if given is None else _range(given, tensor.name, index, derived))
            values.append(None)
        profiles.append(Profile(tuple(shapes), tuple(values)))
    return tuple(profiles)


def _derived(number: int, tensor: InputTensor, example: torch.Tensor, dimensions: Dimensions) -> Range:
    bounds = [dimensions.bounds(number, axis) for axis in range(len(tensor.shape))]
    return Range(tuple(low for low, _ in bounds), tuple(example.shape), tuple(high for _, high in bounds))


def _every_value(tensor: InputTensor, example: torch.Tensor) -> Range:
    limits = torch.iinfo(tensor.dtype)
    count = example.numel()
    return Range((limits.min,) * count, tuple(example.reshape(-1).tolist()), (limits.max,) * count)


def _range(given: Sequence[Sequence[int]], name: str, profile: int, allowed: Range) -> Range:
    if len(given) != 3 or any(len(sizes) != len(allowed.min) for sizes in given):
        raise CompileError(
            f"profile {profile} must have (min, opt, max) of {name!r}, each of length {len(allowed.min)}, "
            f"not {given}"
        )
    wanted = Range(*(tuple(int(size) for size in sizes) for sizes in given))
    if not wanted.admits(wanted.opt):
        raise CompileError(f"profile {profile} has min <= opt <= max broken for {name!r}: {given}")
    if not allowed.admits(wanted.min) or not allowed.admits(wanted.max):
        raise CompileError(
            f"profile {profile} has min {list(wanted.min)} and max {list(wanted.max)} of {name!r}, and the "
            f"exported network allows {list(allowed.min)} to {list(allowed.max)}: widen dynamic_shapes"
        )
    return wanted
