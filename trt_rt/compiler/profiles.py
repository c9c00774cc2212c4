"""Optimization profiles: derive them from an exported program, check them, give them to TensorRT."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from trt_rt.errors import CompileError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = [
    "Profile",
    "ShapeRange",
    "add_profile",
    "check_against_export",
    "check_profiles",
    "derive_profile",
    "tensor_input_names",
]

ShapeRange: TypeAlias = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""The smallest, the most usual and the largest shape of one input; for a shape tensor, its values."""

Profile: TypeAlias = Mapping[str, ShapeRange]
"""An optimization profile: the range of every input with dynamic dimensions, by name."""

_LARGEST_DIMENSION = 2**31 - 1
_LARGEST_VALUE = 2**63 - 1


def tensor_input_names(program: ExportedProgram) -> list[str]:
    """Return the names that the export gave to the tensor inputs, in order."""
    return [node.name for node, _ in _inputs(program)]


def derive_profile(program: ExportedProgram, names: Sequence[str]) -> Profile:
    """Return the profile that follows from the dynamic dimensions of a program.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program. Its example inputs have the most usual shapes.
    names : sequence of str
        The names of its inputs, in order.

    Returns
    -------
    Profile
        A range for each input with dynamic dimensions.

    Raises
    ------
    CompileError
        A dimension has no largest size.
    """
    profile: dict[str, ShapeRange] = {}
    for name, (node, example) in zip(names, _inputs(program), strict=True):
        bounds = [_bounds(size, program) for size in node.meta["val"].shape]
        for axis, (_, high) in enumerate(bounds):
            if high > _LARGEST_DIMENSION:
                raise CompileError(
                    f"dimension {axis} of input {name!r} is dynamic and has no largest size: give it one "
                    f"(torch.export.Dim(..., max=...) in dynamic_shapes), or give profiles"
                )
        if any(low != high for low, high in bounds):
            profile[name] = (
                tuple(low for low, _ in bounds),
                tuple(example.shape),
                tuple(high for _, high in bounds),
            )
    return profile


def check_profiles(profiles: Sequence[Profile] | None) -> None:
    """Raise unless profiles have the form that :func:`trt_rt.build` documents.

    Whether they fit the model is checked once its inputs are known.

    Raises
    ------
    CompileError
        The message names the profile and the input.
    """
    if profiles is None:
        return
    if isinstance(profiles, (Mapping, str)) or not isinstance(profiles, Sequence):
        raise CompileError(
            f"profiles must be a list of dicts, one for each profile, and is a {type(profiles).__name__}: "
            "for one profile, give a list of one dict"
        )
    for index, profile in enumerate(profiles):
        if not isinstance(profile, Mapping):
            raise CompileError(f"profile {index} is a {type(profile).__name__}; it must be a dict")
        for name, shape_range in profile.items():
            if not _is_shape_range(shape_range):
                raise CompileError(
                    f"profile {index}, input {name!r}: a range is three shapes (min, opt, max), each a tuple "
                    f"of 64-bit integers, not {shape_range!r}"
                )


def _is_shape_range(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 3
        and all(
            isinstance(shape, Sequence)
            and all(isinstance(size, int) and abs(size) <= _LARGEST_VALUE for size in shape)
            for shape in value
        )
    )


def check_against_export(profiles: Sequence[Profile], program: ExportedProgram, names: Sequence[str]) -> None:
    """Raise if a profile allows shapes that the exported program does not support.

    Raises
    ------
    CompileError
        The message names the profile, the input and both ranges.
    """
    nodes = dict(zip(names, _inputs(program), strict=True))
    for index, profile in enumerate(profiles):
        for name, (smallest, _, largest) in profile.items():
            if name not in nodes:
                continue
            bounds = [_bounds(size, program) for size in nodes[name][0].meta["val"].shape]
            if len(bounds) != len(smallest) or len(bounds) != len(largest):
                continue  # the values of a shape tensor, or a range that add_profile refuses
            if any(
                small < low or large > high
                for small, large, (low, high) in zip(smallest, largest, bounds, strict=True)
            ):
                raise CompileError(
                    f"profile {index} allows input {name!r} from {tuple(smallest)} to {tuple(largest)}, and "
                    f"the exported model is right from {tuple(low for low, _ in bounds)} to "
                    f"{tuple(high for _, high in bounds)}: narrow the profile, or widen dynamic_shapes"
                )


def add_profile(profile: Profile, index: int, builder: Any, network: Any, config: Any) -> None:
    """Check a profile and give it to TensorRT, whose ``set_shape`` silently accepts unknown names."""
    inputs = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    unknown = sorted(profile.keys() - inputs.keys())
    if unknown:
        raise CompileError(f"profile {index} has ranges for {unknown}, but the inputs are {sorted(inputs)}")
    tensorrt_profile = builder.create_optimization_profile()
    for name, tensor in inputs.items():
        if name in profile:
            _check_range(profile[name], index, tensor)
            set_range = (
                tensorrt_profile.set_shape_input if tensor.is_shape_tensor else tensorrt_profile.set_shape
            )
            set_range(name, *(tuple(shape) for shape in profile[name]))
        elif -1 in tensor.shape or tensor.is_shape_tensor:
            raise CompileError(
                f"profile {index} has no range for input {name!r}, which needs one: its shape "
                f"{tuple(tensor.shape)} is dynamic (-1), or its values are shapes"
            )
    if config.add_optimization_profile(tensorrt_profile) < 0:
        raise CompileError(f"TensorRT refused profile {index}: {dict(profile)}")


def _inputs(program: ExportedProgram) -> list[tuple[Any, Any]]:
    """Return graph node and example value of the user's tensor inputs."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    examples = torch.utils._pytree.tree_leaves(program.example_inputs)
    pairs = zip((nodes[name] for name in names), examples, strict=True)
    return [(node, example) for node, example in pairs if isinstance(example, torch.Tensor)]


def _bounds(size: Any, program: ExportedProgram) -> tuple[int, int]:
    """Return the smallest and the largest value of a dimension, which may be an expression of others.

    Without an upper bound, the largest value is one more than a dimension can have.
    """
    if not isinstance(size, torch.SymInt):
        return int(size), int(size)
    from torch.utils._sympy.value_ranges import bound_sympy

    found = bound_sympy(size.node.expr, program.range_constraints)
    low, high = max(int(found.lower), 0), found.upper
    return low, int(high) if high <= _LARGEST_DIMENSION else _LARGEST_DIMENSION + 1


def _check_range(shape_range: ShapeRange, index: int, tensor: Any) -> None:
    """Raise unless the shapes fit the tensor and each other. TensorRT would say so only during the build."""
    if len(shape_range) != 3:
        raise CompileError(
            f"profile {index}, input {tensor.name!r}: a range is a smallest, a most usual and a largest "
            f"shape, not {shape_range!r}"
        )
    misfit = next((shape for shape in shape_range if not _fits(shape, tensor)), None)
    if misfit is not None:
        kind = "the values of shape tensor" if tensor.is_shape_tensor else "input"
        raise CompileError(
            f"profile {index}: {tuple(misfit)} does not fit {kind} {tensor.name!r}, whose shape is "
            f"{tuple(tensor.shape)} (-1: dynamic)"
        )
    if not all(low <= middle <= high for low, middle, high in zip(*shape_range, strict=True)):
        raise CompileError(
            f"profile {index}, input {tensor.name!r}: a range grows from smallest over most usual to largest "
            f"in every dimension; this one does not: {tuple(map(tuple, shape_range))}"
        )


def _fits(shape: Sequence[int], tensor: Any) -> bool:
    expected: tuple[int, ...] = tuple(tensor.shape)
    if tensor.is_shape_tensor:
        return len(shape) == math.prod(expected)
    return len(shape) == len(expected) and all(
        fixed in (-1, given) for fixed, given in zip(expected, shape, strict=True)
    )
