"""The description of an engine's I/O tensors in PyTorch's terms."""

from __future__ import annotations

from typing import Any

import torch

from trt_rt._core.io_tensor import IOTensor, ProfileRange
from trt_rt.errors import PlanError

__all__ = ["DTYPES", "describe_io_tensor"]

# By the name of TensorRT's enum member, because its number differs between versions.
DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "FP8": torch.float8_e4m3fn,
}


def describe_io_tensor(api: Any, engine: Any, name: str, tensor_format: str) -> IOTensor:
    """Return one of an engine's I/O tensors.

    Parameters
    ----------
    api : module
        The Python module that the engine comes from.
    engine : ICudaEngine
        The engine.
    name : str
        The tensor's name.
    tensor_format : str
        TensorRT's name of the tensor's memory layout.

    Raises
    ------
    PlanError
        The tensor has a dtype or a memory layout that no PyTorch tensor has.
    """
    is_input = engine.get_tensor_mode(name) == api.TensorIOMode.INPUT
    is_host = engine.get_tensor_location(name) == api.TensorLocation.HOST
    member = engine.get_tensor_dtype(name).name
    if member not in DTYPES:
        raise PlanError(
            f"I/O tensor {name!r} has TensorRT's dtype {member}, but PyTorch has no such dtype that "
            "DLPack can describe. Build the engine with other input and output dtypes."
        )
    if tensor_format not in ("LINEAR", "DLA_LINEAR"):
        raise PlanError(
            f"I/O tensor {name!r} has TensorRT's memory layout {tensor_format}, but PyTorch's tensors "
            "are LINEAR. Build the engine with linear inputs and outputs."
        )
    return IOTensor(
        name=name,
        mode="input" if is_input else "output",
        dtype=DTYPES[member],
        shape=tuple(engine.get_tensor_shape(name)),
        location="host" if is_host else "device",
        format=tensor_format,
        profiles=_profiles(engine, name, is_host) if is_input else (),
        aliased_input=None if is_input else _aliased_input(engine, name),
    )


def _profiles(engine: Any, name: str, is_host: bool) -> tuple[ProfileRange, ...]:
    ranges = []
    for index in range(engine.num_optimization_profiles):
        if is_host:
            # TensorRT's docstring gives the arguments in the wrong order: (name, profile_index).
            limits = engine.get_tensor_profile_values(index, name)
        else:
            limits = engine.get_tensor_profile_shape(name, index)
        if len(limits) == 3:  # empty where no profile restricts the tensor
            ranges.append(ProfileRange(*(tuple(int(size) for size in limit) for limit in limits)))
    return tuple(ranges)


def _aliased_input(engine: Any, name: str) -> str | None:
    lookup = getattr(engine, "get_aliased_input_tensor", None)  # since TensorRT 10.15
    return (lookup(name) or None) if lookup else None
