"""Messages about tensors that an engine cannot take."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt.errors import InputTypeError, InputValueError

__all__ = ["describe", "named", "refuse_kind", "refuse_to_write"]


def describe(value: Any) -> str:
    """Describe a tensor by dtype, shape and device, or another object by its type."""
    if not issubclass(type(value), torch.Tensor):
        return f"a {type(value).__name__}"
    try:
        return f"{value.dtype}{list(value.shape)} on {value.device}"
    except Exception:  # a tensor subclass can fail at anything
        return f"a {type(value).__name__}"


def named(target: IOTensor) -> str:
    """Return how messages name an I/O tensor: its direction, name, dtype and shape."""
    return f"{target.mode} {target}"


def refuse_kind(value: Any, target: IOTensor, device: torch.device) -> NoReturn:
    """Raise for a tensor whose dtype, device or memory an engine on `device` cannot take.

    Raises
    ------
    InputTypeError
        If the dtype is not the engine's.
    InputValueError
        If the device is not the engine's, there are more than 8 dimensions, or there is no memory.
    """
    if not isinstance(value, torch.Tensor):
        raise InputTypeError(f"{named(target)} needs a torch.Tensor; got {describe(value)}.")
    if value.dtype != target.dtype:
        raise InputTypeError(
            f"{named(target)} needs {target.dtype}; got {describe(value)}. trt_rt casts nothing silently: "
            f"call .to({target.dtype})."
        )
    wanted = torch.device("cpu") if target.is_shape_tensor else device
    if value.device != wanted:
        why = (
            ", because TensorRT reads a shape tensor's values in host memory"
            if target.is_shape_tensor
            else ""
        )
        raise InputValueError(
            f"{named(target)} needs a tensor on {wanted}{why}; got {describe(value)}. trt_rt moves nothing "
            f"silently: call .to({str(wanted)!r})."
        )
    if value.dim() > 8:
        raise InputValueError(f"{named(target)}: TensorRT has at most 8 dimensions; got {describe(value)}.")
    raise InputValueError(f"{named(target)}: {describe(value)} has no memory that an engine could use.")


def refuse_to_write(value: torch.Tensor, target: IOTensor) -> None:
    """Raise for an output tensor that PyTorch's own operators would refuse to write into.

    Raises
    ------
    InputValueError
        If the tensor is a negative view; requires grad, in grad mode; or is an inference tensor, outside
        inference mode.
    """
    if value.is_neg():
        raise InputValueError(
            f"{named(target)}: out= is a view whose elements are still to be negated, so the result would "
            "have the other sign. Pass a tensor that is not."
        )
    if value.requires_grad and torch.is_grad_enabled():
        raise InputValueError(
            f"{named(target)}: out= requires grad, and an engine has no derivative. Pass out.detach(), or "
            "call under torch.no_grad()."
        )
    if value.is_inference() and not torch.is_inference_mode_enabled():
        raise InputValueError(
            f"{named(target)}: out= is an inference tensor, which can be written in inference mode only. "
            "Pass a clone of it, or call under torch.inference_mode()."
        )


hide_from_dynamo(globals())
