"""The I/O tensors of a network that is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from trt_rt._core.io_tensor import IOTensor, ProfileRange
from trt_rt.backend.io_tensors import DTYPES
from trt_rt.compiler.profiles import Profile
from trt_rt.errors import CompileError

__all__ = ["network_io", "reference_io"]


def network_io(network: Any, profiles: Sequence[Profile]) -> tuple[IOTensor, ...]:
    """Return the I/O tensors of an ``INetworkDefinition``, inputs first.

    The network has them before the build, so this needs no GPU. An engine could only be asked on one.

    Parameters
    ----------
    network : INetworkDefinition
        The network after the parser has filled it.
    profiles : sequence of Profile
        The optimization profiles of the build.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return (
        *(_tensor(tensor, "input", profiles) for tensor in inputs),
        *(_tensor(tensor, "output", ()) for tensor in outputs),
    )


def reference_io(plan: bytes | memoryview) -> tuple[IOTensor, ...]:
    """Return the I/O tensors that a plan of the reference backend holds."""
    from trt_rt.reference.plan import unpack_plan

    content, _ = unpack_plan(memoryview(plan))
    inputs = (
        IOTensor(
            tensor.name,
            "input",
            tensor.dtype,
            tensor.shape,
            tensor.location,
            profiles=tuple(
                ProfileRange(found.min, found.opt, found.max)
                for profile in content.profiles
                for found in [profile.values[number] or profile.shapes[number]]
            ),
        )
        for number, tensor in enumerate(content.inputs)
    )
    outputs = (
        IOTensor(tensor.name, "output", tensor.dtype, tensor.shape, aliased_input=tensor.aliased_input)
        for tensor in content.outputs
    )
    return (*inputs, *outputs)


def _dtype(tensor: Any) -> torch.dtype:
    if tensor.dtype.name not in DTYPES:
        raise CompileError(
            f"I/O tensor {tensor.name!r} of the model is {tensor.dtype.name}, and an engine can be "
            "given no PyTorch tensor of that type: cast it in the model"
        )
    return DTYPES[tensor.dtype.name]


def _tensor(tensor: Any, mode: Literal["input", "output"], profiles: Sequence[Profile]) -> IOTensor:
    ranges = [profile[tensor.name] for profile in profiles if tensor.name in profile]
    return IOTensor(
        name=tensor.name,
        mode=mode,
        dtype=_dtype(tensor),
        shape=tuple(tensor.shape),
        location="host" if tensor.is_shape_tensor else "device",
        profiles=tuple(ProfileRange(*(tuple(shape) for shape in found)) for found in ranges),
    )
