"""ONNX to a plan, with the builder and the ONNX parser of a TensorRT library.

``tensorrt`` and ``tensorrt_rtx`` share this code: their Python modules have the same classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from trt_rt.backend import Backend
from trt_rt.compiler.build_log import collect_errors
from trt_rt.errors import CompileError

__all__ = ["Profile", "ShapeRange", "build_from_onnx"]

ShapeRange: TypeAlias = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Smallest, most usual and largest shape of one input (of a shape tensor: its values)."""

Profile: TypeAlias = Mapping[str, ShapeRange]
"""An optimization profile: a range for every input that has dynamic dimensions, under its name."""


def build_from_onnx(onnx_model: bytes, backend: Backend, *, profiles: Sequence[Profile] = ()) -> bytes:
    """Build a plan from a serialized ONNX model.

    Parameters
    ----------
    onnx_model : bytes
        A serialized ONNX ``ModelProto`` with its weights inside, such as :func:`export_onnx` returns.
    backend : Backend
        One that has TensorRT's builder: ``trt_rt.backend.load("tensorrt")``, or ``"tensorrt_rtx"``.
    profiles : sequence of Profile
        Optimization profiles in the order of their indices. Needed if an input has dynamic dimensions.

    Returns
    -------
    bytes
        The plan. ``tensorrt`` needs a GPU for this, ``tensorrt_rtx`` does not.

    Raises
    ------
    CompileError
        The model is not ONNX, holds a node that TensorRT does not support (the message names node and
        operator), a profile does not fit the inputs, or the builder refuses the network.
    """
    with collect_errors() as logged:
        builder = backend.api.Builder(backend.log.ilogger)
        network = builder.create_network(_network_flags(backend.api))
        _parse(onnx_model, network, backend)
        config = builder.create_builder_config()
        for index, profile in enumerate(profiles):
            _add_profile(profile, index, builder, network, config)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = "; ".join(logged) or "it logged no reason"
        raise CompileError(f"{backend.name} refused to build the network: {reason}")
    return bytes(plan)


def _network_flags(api: Any) -> int:
    """Ask for a strongly typed network: dtypes are the model's, as in PyTorch, never the builder's choice."""
    return 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parse(onnx_model: bytes, network: Any, backend: Backend) -> None:
    parser = backend.api.OnnxParser(network, backend.log.ilogger)
    if not parser.parse(onnx_model):
        found = [_describe_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise CompileError(f"{backend.name} cannot parse the ONNX model: " + "; ".join(found))
    if network.num_outputs == 0:
        raise CompileError(
            f"the ONNX model ({len(onnx_model):,} bytes) has no outputs, so there is nothing to build; "
            "it may be empty or truncated"
        )


def _describe_parser_error(error: Any) -> str:
    description = f"{error.desc()} [{error.code().name}]"
    if not error.node_operator():
        return description
    return f"node {error.node_name()!r}, operator {error.node_operator()}: {description}"


def _add_profile(profile: Profile, index: int, builder: Any, network: Any, config: Any) -> None:
    """Check a profile and hand it to TensorRT, whose ``set_shape`` accepts unknown names silently."""
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


def _check_range(shape_range: ShapeRange, index: int, tensor: Any) -> None:
    """Raise unless the three shapes fit the tensor and each other; TensorRT says so only at build time."""
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
