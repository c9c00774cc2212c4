"""The slow path of an argument that is not a plain, contiguous tensor of the right kind.

Nothing in this file runs in the steady state. A function either returns a tensor that can be bound, or raises
an `InputError` that names the I/O tensor, the argument and what is allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from trt_rt._core.autograd_modes import without_grad
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt._core.profile_choice import check_static_dimensions, choose_profile
from trt_rt._core.refused_tensors import describe, named, refuse_kind
from trt_rt.errors import InputTypeError, InputValueError

__all__ = ["as_kind_of", "as_plain_tensor", "contiguous_copy", "is_symbolic"]

_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


_SYMBOLIC = (
    ("torch.fx.proxy", "Proxy"),
    ("torch._subclasses.fake_tensor", "FakeTensor"),
    ("torch._subclasses.functional_tensor", "FunctionalTensor"),
)
"""Classes of what PyTorch's tracers pass in the place of tensors, where they are imported."""


def is_symbolic(value: Any) -> bool:
    """Return whether an argument stands for a tensor in a graph that PyTorch traces."""
    classes = (getattr(sys.modules.get(module), name, None) for module, name in _SYMBOLIC)
    return any(kind is not None and issubclass(type(value), kind) for kind in classes)


def as_plain_tensor(value: Any, target: IOTensor) -> torch.Tensor:
    """Return an argument as a strided ``torch.Tensor``, over the same memory if possible.

    Parameters
    ----------
    value : object
        A tensor, a subclass of it, or an object with ``__dlpack__`` (NumPy, CuPy, JAX). For an input without
        dimensions also a Python number.
    target : IOTensor
        The I/O tensor that gets the argument.

    Returns
    -------
    torch.Tensor
        A tensor without conjugate and negative bits. Pending conjugations and negations are computed.

    Raises
    ------
    InputTypeError
        The argument is not a tensor, or has no memory of its own (fake, batched, distributed, sparse).
    """
    if target.mode == "input" and not target.shape and type(value) in _WIDEST_DTYPES:
        return _as_scalar(value, target)
    if is_symbolic(value):
        raise InputTypeError(
            f"{named(target)} needs a tensor with memory of its own; a {type(value).__name__} stands for "
            "one in a graph that PyTorch traces. Call the module for it, not its executor, bind() or out=."
        )
    is_tensor = issubclass(type(value), torch.Tensor)  # a mock's __class__ may say anything
    tensor = value if is_tensor else _from_other_library(value, target)
    if type(tensor) not in _PLAIN_TYPES:
        tensor = _without_subclass(tensor, target)
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise InputTypeError(
            f"{named(target)} needs a tensor with memory of its own; a torch.func transform (grad, jvp, "
            "vmap) has wrapped this one, and an engine has no derivative and no batching rule. Call the "
            "engine outside of the transform, or with tensors that it does not transform."
        )
    if tensor.layout is not torch.strided:
        raise InputTypeError(
            f"{named(target)} needs a dense tensor; got one of layout {tensor.layout}. Call .to_dense()."
        )
    return without_grad(partial(_resolved, tensor))


def _resolved(tensor: torch.Tensor) -> torch.Tensor:
    with plain_pytorch():
        return tensor.resolve_conj().resolve_neg()


# Of Python's numbers: what keeps every value that the dtype of an engine's input can hold.
_WIDEST_DTYPES = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}


def _as_scalar(number: Any, target: IOTensor) -> torch.Tensor:
    try:
        with plain_pytorch():
            return torch.tensor(number, dtype=_WIDEST_DTYPES[type(number)])
    except (RuntimeError, ValueError) as error:
        raise InputValueError(f"{named(target)}: {number!r} does not fit: {error}") from None


def as_kind_of(
    value: torch.Tensor,
    target: IOTensor,
    device: torch.device,
    move_input: Callable[[torch.Tensor, IOTensor, torch.device], torch.Tensor] | None,
) -> torch.Tensor:
    """Return an argument of another dtype or device as a tensor of the input's, where that is no surprise.

    A number, which is a CPU tensor without dimensions here, becomes one as where PyTorch's operators mix it
    with the input: an integer for a floating-point input, but no fraction for an integer input.

    Parameters
    ----------
    value : torch.Tensor
        Plain and strided, of another dtype or on another device.
    target : IOTensor
        The input it is meant for.
    device : torch.device
        The engine's.
    move_input : callable or None
        ``move_input(value, target, device)`` returns a tensor on `device`; None if nothing is to be moved.

    Returns
    -------
    torch.Tensor

    Raises
    ------
    InputTypeError, InputValueError
        As `refuse_kind`, for every other argument; also for a number that the dtype cannot hold.
    """
    wanted = torch.device("cpu") if target.is_shape_tensor else device
    if not target.shape and value.dim() == 0 and value.device.type == "cpu":
        return without_grad(partial(_mixed_in, value, target, wanted))
    can_move = value.dtype == target.dtype and value.device != wanted and not value.is_meta
    if move_input is not None and can_move:
        return move_input(value, target, wanted)
    refuse_kind(value, target, device)


def _mixed_in(number: torch.Tensor, target: IOTensor, device: torch.device) -> torch.Tensor:
    with plain_pytorch():
        return _converted(number, target, device)


def _converted(number: torch.Tensor, target: IOTensor, device: torch.device) -> torch.Tensor:
    try:
        # With a tensor that has dimensions, the dtype of a number counts only if it is of a higher category.
        mixed = torch.result_type(torch.empty(1, dtype=target.dtype), number)
    except RuntimeError:  # float8 and the like mix with nothing
        mixed = number.dtype
    if mixed != target.dtype:
        refuse_kind(number, target, device)
    try:
        return torch.full((), number.item(), dtype=target.dtype, device=device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise InputValueError(f"{named(target)}: {number.item()!r} does not fit: {error}") from None


def _from_other_library(value: Any, target: IOTensor) -> torch.Tensor:
    numpy = sys.modules.get("numpy")
    try:
        if numpy is not None and isinstance(value, numpy.ndarray):
            return _from_numpy(value)
        if hasattr(value, "__dlpack__"):
            return from_dlpack(value)
    except Exception as error:
        raise InputTypeError(f"{named(target)}: {describe(value)} gave no tensor: {error}") from error
    raise InputTypeError(
        f"{named(target)} needs a torch.Tensor, or an object with __dlpack__; got {describe(value)}."
    )


def _from_numpy(array: Any) -> torch.Tensor:
    # from_dlpack ends the process if a stride is negative, and refuses read-only arrays. A copy avoids both,
    # and is correct because inputs from NumPy are only read.
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def _without_subclass(tensor: torch.Tensor, target: IOTensor) -> torch.Tensor:
    interprets = type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    if interprets or hasattr(tensor, "__tensor_flatten__"):
        raise InputTypeError(
            f"{named(target)} needs a tensor with memory of its own; a {type(tensor).__name__} has none "
            "that an engine could read as it is. Convert it to a plain torch.Tensor first."
        )
    return tensor.as_subclass(torch.Tensor)


def contiguous_copy(tensor: torch.Tensor, target: IOTensor) -> torch.Tensor:
    """A contiguous copy of an input, once it is certain that some profile admits it.

    Raises
    ------
    InputValueError
        If no profile admits its shape: an expanded view can ask for any amount of memory.
    MemoryError, torch.OutOfMemoryError
        If there is no memory for it.
    """
    shape = tuple(tensor.shape)
    check_static_dimensions(target, shape)
    if target.profiles and not target.is_shape_tensor:
        choose_profile([target], [shape], [None], 0)
    try:
        with plain_pytorch():
            return tensor.detach().clone(memory_format=torch.contiguous_format)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what PyTorch raises on a CPU
        raise MemoryError(
            f"{named(target)}: no memory for a contiguous copy of {describe(tensor)}: {error}"
        ) from None


hide_from_dynamo(globals())
