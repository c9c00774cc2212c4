"""Shapes as they are asked for on a command line, and example inputs of these shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from trt_rt._core.io_tensor import IOTensor
from trt_rt.errors import InputError, SettingError

__all__ = ["Shapes", "label", "make_inputs", "parse_shapes", "shapes_of_batch"]

Shapes = Mapping[str, tuple[int, ...]]
"""Sizes by the name of the input; for a shape tensor, its values."""


def parse_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Return shapes that are written as trtexec takes them.

    Parameters
    ----------
    text : str
        ``NAME:SIZExSIZE...``, and a comma before the next name. A name may contain colons.

    Raises
    ------
    SettingError
        The text is not of this form.

    Examples
    --------
    >>> parse_shapes("image:1x3x224x224,scale:1")
    {'image': (1, 3, 224, 224), 'scale': (1,)}
    """
    shapes = {}
    for part in text.split(","):
        name, colon, sizes = part.rpartition(":")
        if not name or not colon or not all(size.isdecimal() for size in sizes.split("x")):
            raise SettingError(f"--shapes: {part!r} is not NAME:SIZExSIZE..., such as image:1x3x224x224.")
        shapes[name] = tuple(int(size) for size in sizes.split("x"))
    return shapes


def shapes_of_batch(inputs: Sequence[IOTensor], batch: int | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the engine was optimized for, with another batch size if one is given.

    Parameters
    ----------
    inputs : sequence of IOTensor
        Of the engine.
    batch : int or None
        The first size of each input whose first size is dynamic. None: the optimal one.

    Raises
    ------
    InputError
        No input has a dynamic first size.
    """
    shapes = {tensor.name: tensor.profiles[0].opt if tensor.profiles else tensor.shape for tensor in inputs}
    if batch is None:
        return shapes
    batched = [tensor for tensor in inputs if tensor.shape[:1] == (-1,) and not tensor.is_shape_tensor]
    if not batched:
        raise InputError("no input of this engine has a dynamic batch size. Leave --batch out.")
    return shapes | {tensor.name: (batch, *shapes[tensor.name][1:]) for tensor in batched}


def make_inputs(inputs: Sequence[IOTensor], shapes: Shapes, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return random inputs, the same at every call.

    Parameters
    ----------
    inputs : sequence of IOTensor
        Of the engine.
    shapes : Shapes
        A shape for every input, or for those that differ from what the engine was optimized for.
    device : torch.device
        Where the inputs are to be; shape tensors are in host memory.

    Raises
    ------
    InputError
        A name is unknown, or no profile allows a shape.
    """
    names = [tensor.name for tensor in inputs]
    if unknown := [name for name in shapes if name not in names]:
        raise InputError(f"there is no input {unknown[0]!r}; the engine's inputs are {names}.")
    sizes = shapes_of_batch(inputs, None) | dict(shapes)
    _check(inputs, sizes)
    generator = torch.Generator().manual_seed(0)
    made = []
    for tensor in inputs:
        if tensor.is_shape_tensor:
            values = torch.tensor(sizes[tensor.name], dtype=tensor.dtype)
            made.append(values.reshape(tensor.shape) if -1 not in tensor.shape else values)
            continue
        shape = sizes[tensor.name]
        if tensor.dtype.is_floating_point:
            values = torch.rand(shape, generator=generator)
        else:  # zeros and ones: valid indices of any table
            values = torch.randint(0, 2, shape, generator=generator)
        made.append(values.to(device, tensor.dtype))
    return tuple(made)


def label(shapes: Shapes) -> str:
    """Return shapes as text for people: one shape alone, several with their names."""
    texts = {name: "x".join(map(str, sizes)) or "scalar" for name, sizes in shapes.items()}
    return ", ".join(
        texts.values() if len(texts) == 1 else (f"{name} {text}" for name, text in texts.items())
    )


def _check(inputs: Sequence[IOTensor], sizes: Shapes) -> None:
    for tensor in inputs:
        given = sizes[tensor.name]
        fixed = tensor.shape if not tensor.is_shape_tensor else given
        if len(given) != len(fixed) or any(
            want not in (-1, size) for want, size in zip(fixed, given, strict=True)
        ):
            raise InputError(f"{given} does not fit input {tensor}.")
    profiles = max((len(tensor.profiles) for tensor in inputs), default=0)
    if profiles and not any(
        all(
            not tensor.profiles or tensor.profiles[index].admits(tuple(sizes[tensor.name]))
            for tensor in inputs
        )
        for index in range(profiles)
    ):
        ranges = "; ".join(
            f"{tensor.name!r} allows {' or '.join(map(str, tensor.profiles))}"
            for tensor in inputs
            if tensor.profiles
        )
        raise InputError(f"no profile of the engine admits {label(sizes)}: {ranges}.")
