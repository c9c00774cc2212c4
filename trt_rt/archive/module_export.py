"""A module over one engine, as an exported program."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from trt_rt._core.io_tensor import IOTensor
from trt_rt.module import TRTModule

__all__ = ["exported_module"]


def exported_module(module: TRTModule) -> ExportedProgram:
    """Return a program that calls the engine of a module, for all sizes that its profiles allow.

    Raises
    ------
    BackendError
        Its backend cannot serialize the engine, or is known in this process only.
    """
    engine = module.engine
    by_name = {tensor.name: tensor for tensor in engine.inputs}
    tensors = [by_name[name] for name in module.input_binding_names]
    shapes = [_shape(tensor) for tensor in tensors]
    examples = tuple(
        torch.ones(shape, dtype=tensor.dtype, device="cpu" if tensor.is_shape_tensor else engine.device)
        for tensor, shape in zip(tensors, shapes, strict=True)
    )
    sizes: list[dict[int, Any]] = [
        {axis: Dim.AUTO for axis, size in enumerate(tensor.shape) if size == -1} for tensor in tensors
    ]
    with torch.no_grad():
        return torch.export.export(module, examples, dynamic_shapes=(tuple(sizes),))


def _shape(tensor: IOTensor) -> list[int]:
    """Sizes for an example; PyTorch takes one of 0 or 1 for a size that never varies."""
    shape = []
    for axis, size in enumerate(tensor.shape):
        if size == -1:
            ranges = [(each.min[axis], each.opt[axis], each.max[axis]) for each in tensor.profiles]
            lowest, usual, highest = ranges[0] if ranges and not tensor.is_shape_tensor else (2, 2, 2)
            size = min(max(usual, 2), highest) if usual >= lowest else usual
        shape.append(size)
    return shape
