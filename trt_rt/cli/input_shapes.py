"""Inputs of a model as they are written on the command line: ``x=1x3:8x3:32x3@float16``."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from trt_rt.errors import CompileError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from trt_rt.compiler import Profile

__all__ = ["WrittenInput", "as_example_inputs", "as_profile", "written_input"]

_PATTERN = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<shapes>[0-9x:]*)(?:@(?P<dtype>\w+))?")


@dataclass(frozen=True)
class WrittenInput:
    """An input of a model.

    Attributes
    ----------
    name : str
        Of the keyword argument; "" for a positional one.
    shapes : tuple
        The smallest, the most usual and the largest shape.
    dtype : str or None
        Name of the dtype, as PyTorch has it.
    """

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    dtype: str | None


def written_input(text: str) -> WrittenInput:
    """Parse ``[NAME=]SHAPE[:SHAPE:SHAPE][@DTYPE]``, such as ``1x3x224x224`` or ``mask=1x8:4x8:16x8@int64``.

    A scalar has the shape "". For ``type=`` of an argument.
    """
    match = _PATTERN.fullmatch(text)
    try:
        given = [
            tuple(int(size) for size in shape.split("x")) if shape else ()
            for shape in (match["shapes"].split(":") if match else ())
        ]
    except ValueError:
        given = []
    if match is None or len(given) not in (1, 3):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not [NAME=]SHAPE[:SHAPE:SHAPE][@DTYPE], such as 1x3x224x224, "
            "x=1x3:8x3:32x3 (smallest, most usual and largest) or tokens=1x16@int64"
        )
    shapes = (given[0], given[0], given[0]) if len(given) == 1 else (given[0], given[1], given[2])
    return WrittenInput(match["name"] or "", shapes, match["dtype"])


def as_example_inputs(written: list[WrittenInput]) -> dict[str, Any]:
    """Return ``inputs`` and ``kwarg_inputs`` of `trt_rt.compile`.

    Raises
    ------
    CompileError
        There is no such dtype, the shapes of an input contradict each other, or a name comes twice.
    """
    import trt_rt

    inputs, kwarg_inputs = [], {}
    for one in written:
        low, middle, high = one.shapes
        made = trt_rt.Input(
            min_shape=low,
            opt_shape=middle,
            max_shape=high,
            dtype=_dtype(one.dtype or "float32"),
            name=one.name,
        )
        if not one.name:
            inputs.append(made)
        elif one.name in kwarg_inputs:
            raise CompileError(f"--inputs names {one.name!r} twice")
        else:
            kwarg_inputs[one.name] = made
    return {"inputs": inputs, "kwarg_inputs": kwarg_inputs}


def as_profile(written: list[WrittenInput], program: ExportedProgram) -> Profile:
    """Return the optimization profile that inputs mean for an exported program, which has its own inputs.

    Raises
    ------
    CompileError
        The program has no such input, or it has another dtype or another size.
    """
    import torch

    user_inputs = program.graph_signature.user_inputs
    values = {
        node.name: node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in user_inputs
    }
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    unnamed = iter([name for name in tensors if name not in {one.name for one in written}])
    profile: dict[str, Any] = {}
    for one in written:
        name = one.name or next(unnamed, "")
        if name not in tensors:
            near = get_close_matches(one.name, tensors, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(tensors)}"
            raise CompileError(f"--inputs: the exported program has no input {one.name!r}: {hint}")
        value = tensors[name]
        if one.dtype is not None and _dtype(one.dtype) is not value.dtype:
            raise CompileError(
                f"--inputs: {name!r} is {value.dtype} in the exported program, not {one.dtype}"
            )
        if len(one.shapes[0]) != value.ndim:
            raise CompileError(f"--inputs: {name!r} has {value.ndim} dimensions in the exported program")
        for axis, size in enumerate(value.shape):
            if isinstance(size, int) and any(shape[axis] != size for shape in one.shapes):
                raise CompileError(
                    f"--inputs: dimension {axis} of {name!r} is always {size} in the exported program: "
                    "export it with dynamic_shapes"
                )
        if any(not isinstance(size, int) for size in value.shape):
            profile[name] = one.shapes
    return profile


def _dtype(name: str) -> Any:
    import torch

    known = sorted(key for key, value in vars(torch).items() if isinstance(value, torch.dtype))
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise CompileError(
            f"--inputs: PyTorch has no dtype {name!r}{f': did you mean {near[0]}?' if near else ''}"
        )
    return getattr(torch, name)
