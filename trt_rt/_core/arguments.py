"""The slow path of an argument that is not a plain, contiguous tensor of the right kind.

Nothing in this file runs in the steady state. A function either returns a tensor that can be bound, or raises
an `InputError` that names the I/O tensor, the argument and what is allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NoReturn

import torch
from torch.utils.dlpack import from_dlpack

from trt_rt._core.autograd_modes import without_grad
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.errors import InputTypeError, InputValueError

__all__ = [
    "as_kind_of",
    "as_plain_tensor",
    "choose_profile",
    "contiguous_copy",
    "describe",
    "is_symbolic",
    "refuse_kind",
    "refuse_to_write",
]

_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


def describe(value: Any) -> str:
    """Describe a tensor by dtype, shape and device, or another object by its type."""
    if not issubclass(type(value), torch.Tensor):
        return f"a {type(value).__name__}"
    try:
        return f"{value.dtype}{list(value.shape)} on {value.device}"
    except Exception:  # a tensor subclass can fail at anything
        return f"a {type(value).__name__}"


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
            f"{_names(target)} needs a tensor with memory of its own; a {type(value).__name__} stands for "
            "one in a graph that PyTorch traces. Call the module for it, not its executor, bind() or out=."
        )
    is_tensor = issubclass(type(value), torch.Tensor)  # a mock's __class__ may say anything
    tensor = value if is_tensor else _from_other_library(value, target)
    if type(tensor) not in _PLAIN_TYPES:
        tensor = _without_subclass(tensor, target)
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise InputTypeError(
            f"{_names(target)} needs a tensor with memory of its own; a torch.func transform (grad, jvp, "
            "vmap) has wrapped this one, and an engine has no derivative and no batching rule. Call the "
            "engine outside of the transform, or with tensors that it does not transform."
        )
    if tensor.layout is not torch.strided:
        raise InputTypeError(
            f"{_names(target)} needs a dense tensor; got one of layout {tensor.layout}. Call .to_dense()."
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
        raise InputValueError(f"{_names(target)}: {number!r} does not fit: {error}") from None


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
        raise InputValueError(f"{_names(target)}: {number.item()!r} does not fit: {error}") from None


def _names(target: IOTensor) -> str:
    return f"{target.mode} {target}"


def _from_other_library(value: Any, target: IOTensor) -> torch.Tensor:
    numpy = sys.modules.get("numpy")
    try:
        if numpy is not None and isinstance(value, numpy.ndarray):
            return _from_numpy(value)
        if hasattr(value, "__dlpack__"):
            return from_dlpack(value)
    except Exception as error:
        raise InputTypeError(f"{_names(target)}: {describe(value)} gave no tensor: {error}") from error
    raise InputTypeError(
        f"{_names(target)} needs a torch.Tensor, or an object with __dlpack__; got {describe(value)}."
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
            f"{_names(target)} needs a tensor with memory of its own; a {type(tensor).__name__} has none "
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
    _check_static_dimensions(target, shape)
    if target.profiles and not target.is_shape_tensor:
        choose_profile([target], [shape], [None], 0)
    try:
        with plain_pytorch():
            return tensor.detach().clone(memory_format=torch.contiguous_format)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what PyTorch raises on a CPU
        raise MemoryError(
            f"{_names(target)}: no memory for a contiguous copy of {describe(tensor)}: {error}"
        ) from None


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
        raise InputTypeError(f"{_names(target)} needs a torch.Tensor; got {describe(value)}.")
    if value.dtype != target.dtype:
        raise InputTypeError(
            f"{_names(target)} needs {target.dtype}; got {describe(value)}. trt_rt casts nothing silently: "
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
            f"{_names(target)} needs a tensor on {wanted}{why}; got {describe(value)}. trt_rt moves nothing "
            f"silently: call .to({str(wanted)!r})."
        )
    if value.dim() > 8:
        raise InputValueError(f"{_names(target)}: TensorRT has at most 8 dimensions; got {describe(value)}.")
    raise InputValueError(f"{_names(target)}: {describe(value)} has no memory that an engine could use.")


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
            f"{_names(target)}: out= is a view whose elements are still to be negated, so the result would "
            "have the other sign. Pass a tensor that is not."
        )
    if value.requires_grad and torch.is_grad_enabled():
        raise InputValueError(
            f"{_names(target)}: out= requires grad, and an engine has no derivative. Pass out.detach(), or "
            "call under torch.no_grad()."
        )
    if value.is_inference() and not torch.is_inference_mode_enabled():
        raise InputValueError(
            f"{_names(target)}: out= is an inference tensor, which can be written in inference mode only. "
            "Pass a clone of it, or call under torch.inference_mode()."
        )


def choose_profile(
    inputs: Sequence[IOTensor],
    shapes: Sequence[tuple[int, ...]],
    values: Sequence[tuple[int, ...] | None],
    current: int,
    forced: int = -1,
) -> int:
    """Return the profile for given shapes: the current one if it admits them, else the first that does.

    Parameters
    ----------
    inputs : sequence of IOTensor
        The engine's inputs.
    shapes : sequence of tuple of int
        The shape of each.
    values : sequence of tuple of int or None
        The values of each shape tensor, and None for each other input.
    current : int
        The profile in use.
    forced : int, optional
        The only profile that may be chosen, or -1 for any profile.

    Raises
    ------
    InputValueError
        No profile admits the shapes. The message names the first tensor that no profile admits, and what each
        profile allows.
    """
    for tensor, shape in zip(inputs, shapes, strict=True):
        _check_static_dimensions(tensor, shape)
    ranges = [
        (tensor, shape if value is None else value)
        for tensor, shape, value in zip(inputs, shapes, values, strict=True)
        if tensor.profiles
    ]
    count = max((len(tensor.profiles) for tensor, _ in ranges), default=1)
    for index in (forced,) if forced >= 0 else chain((current,), range(count)):
        if all(tensor.profiles[index].admits(sizes) for tensor, sizes in ranges):
            return index
    if forced >= 0:
        raise InputValueError(_not_in_profile(ranges, forced))
    raise InputValueError(_no_profile(ranges, count))


def _check_static_dimensions(tensor: IOTensor, shape: tuple[int, ...]) -> None:
    fits = len(shape) == len(tensor.shape) and all(
        wanted in (-1, size) for wanted, size in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise InputValueError(f"{_names(tensor)}: got shape {list(shape)}, which does not fit.")


def _not_in_profile(ranges: Sequence[tuple[IOTensor, tuple[int, ...]]], forced: int) -> str:
    tensor, sizes = next((t, s) for t, s in ranges if not t.profiles[forced].admits(s))
    what = "values" if tensor.is_shape_tensor else "shape"
    return (
        f"{_names(tensor)}: got {what} {list(sizes)}, but optimization profile {forced}, which was chosen "
        f"for this module, admits {tensor.profiles[forced]}. Choose another, or 'auto'."
    )


def _no_profile(ranges: Sequence[tuple[IOTensor, tuple[int, ...]]], count: int) -> str:
    for tensor, sizes in ranges:
        if not any(profile.admits(sizes) for profile in tensor.profiles):
            what = "values" if tensor.is_shape_tensor else "shape"
            allowed = "; ".join(f"profile {i}: {profile}" for i, profile in enumerate(tensor.profiles))
            return (
                f"{_names(tensor)}: got {what} {list(sizes)}, outside what the engine was built for "
                f"({allowed})."
            )
    got = ", ".join(f"{tensor.name!r} {list(sizes)}" for tensor, sizes in ranges)
    return f"no single one of the {count} optimization profiles admits these inputs together: {got}."


hide_from_dynamo(globals())
