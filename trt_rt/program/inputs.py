"""Example inputs and the sizes for which a program is made."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim
from torch.utils._pytree import tree_any, tree_leaves, tree_map

from trt_rt._core.dtype_name import dtype_name
from trt_rt.compiler.onnx_export import DynamicShapes
from trt_rt.errors import CompileError

__all__ = ["ExampleInputs", "Input", "example_arguments", "example_inputs"]


class Input:
    """A tensor input that is described instead of given: its dtype and the shapes that it can have.

    Parameters
    ----------
    shape : sequence of int, optional
        The only shape. Give this, or the three below.
    min_shape, opt_shape, max_shape : sequence of int, optional
        The smallest, the most usual and the largest shape. A dimension varies if it differs between them.
    dtype : torch.dtype
        Of its elements.
    name : str
        For messages.
    device : torch.device or str, optional
        Where the program gets it. Default: where the model is.

    Raises
    ------
    CompileError
        The shapes have different ranks, or min <= opt <= max is broken.

    Examples
    --------
    >>> image = trt_rt.Input(min_shape=(1, 3, 32, 32), opt_shape=(8, 3, 32, 32), max_shape=(16, 3, 32, 32))
    >>> image.shape
    (8, 3, 32, 32)
    """

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        min_shape: Sequence[int] | None = None,
        opt_shape: Sequence[int] | None = None,
        max_shape: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        name: str = "",
        device: torch.device | str | None = None,
    ) -> None:
        what = f"the input {name!r}" if name else "an input"
        several = (min_shape, opt_shape, max_shape)
        if shape is not None and several == (None, None, None):
            several = (shape, shape, shape)
        elif shape is not None or None in several:
            raise CompileError(f"{what} needs either shape, or min_shape, opt_shape and max_shape")
        self.min_shape, self.opt_shape, self.max_shape = (
            tuple(int(size) for size in sizes or ()) for sizes in several
        )
        self.dtype = dtype
        self.name = name
        self.device = device
        if not len(self.min_shape) == len(self.opt_shape) == len(self.max_shape):
            raise CompileError(
                f"{what} has shapes of different rank: min {self.min_shape}, opt {self.opt_shape}, "
                f"max {self.max_shape}"
            )
        sizes = zip(self.min_shape, self.opt_shape, self.max_shape, strict=True)
        for axis, (low, middle, high) in enumerate(sizes):
            if not 0 <= low <= middle <= high:
                raise CompileError(
                    f"dimension {axis} of {what} breaks min <= opt <= max: {low}, {middle}, {high}"
                )

    def __repr__(self) -> str:
        dtype = dtype_name(self.dtype)
        if self.min_shape == self.max_shape:
            return f"Input({self.opt_shape}, dtype={dtype})"
        return f"Input({self.min_shape} to {self.max_shape}, opt {self.opt_shape}, dtype={dtype})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The most usual shape."""
        return self.opt_shape

    def example(self, device: torch.device) -> torch.Tensor:
        """Return a tensor of the most usual shape, with dimensions that vary at least 2.

        torch.export takes a size of 0 or 1 for a constant.
        """
        shape = tuple(
            min(max(size, 2), high) if low != high else size
            for low, size, high in zip(self.min_shape, self.opt_shape, self.max_shape, strict=True)
        )
        return torch.ones(shape, dtype=self.dtype, device=self.device or device)

    def dynamic_dimensions(self) -> dict[int, Any]:
        """Return the dimensions that vary, as torch.export takes them."""
        return {
            axis: Dim.DYNAMIC(min=low, max=high)
            for axis, (low, high) in enumerate(zip(self.min_shape, self.max_shape, strict=True))
            if low != high
        }


@dataclass(frozen=True)
class ExampleInputs:
    """The arguments of a module's export.

    Attributes
    ----------
    args, kwargs : tuple, dict
        The example call.
    dynamic_shapes : dict, tuple, list or None
        As torch.export takes it.
    opt_shapes : tuple
        For each leaf of `args` and `kwargs` the shape for which engines are tuned; None for what is no
        tensor.
    min_shapes : tuple
        For each leaf the smallest shape that an `Input` allows; None for others.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: DynamicShapes
    opt_shapes: tuple[tuple[int, ...] | None, ...]
    min_shapes: tuple[tuple[int, ...] | None, ...]


def example_inputs(
    model: torch.nn.Module,
    inputs: Sequence[Any] | None,
    arg_inputs: Sequence[Any] | None,
    kwarg_inputs: Mapping[str, Any] | None,
    dynamic_shapes: DynamicShapes,
    device: torch.device,
) -> ExampleInputs:
    """Return the example call of a module, and which of its dimensions vary.

    Parameters
    ----------
    model : torch.nn.Module
        Whose call it is.
    inputs, arg_inputs : sequence, optional
        Positional arguments, under one name or the other: tensors, `Input` or ``torch_tensorrt.Input``, or
        nested lists, tuples and dicts of those.
    kwarg_inputs : mapping, optional
        Arguments by keyword.
    dynamic_shapes : dict, tuple or list, optional
        As torch.export takes it. Default: what each `Input` says, and the marks of
        ``torch._dynamo.mark_dynamic`` on tensors.
    device : torch.device
        Where the tensors of an `Input` without a device are made.

    Raises
    ------
    CompileError
        No inputs are given, or the same ones twice.
    """
    given = _given(inputs, arg_inputs, kwarg_inputs)
    described = any(isinstance(leaf, Input) for leaf in tree_leaves(given))
    if described and dynamic_shapes is not None:
        raise CompileError("trt_rt.Input says which dimensions vary: leave out dynamic_shapes")
    leaves = tree_leaves(given)
    args, kwargs = _with_examples(given, device)
    marked_args, marked_kwargs = tree_map(_dimensions, given)
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*marked_args, **marked_kwargs)
    except TypeError as error:
        raise CompileError(
            f"{type(model).__name__} cannot be called with these inputs: {error}; it takes {signature}"
        ) from error
    if dynamic_shapes is None and tree_any(_varies, given):
        dynamic_shapes = dict(bound.arguments)
    return ExampleInputs(
        args, kwargs, dynamic_shapes, tuple(map(_opt_shape, leaves)), tuple(map(_min_shape, leaves))
    )


def example_arguments(
    inputs: Sequence[Any] | None,
    arg_inputs: Sequence[Any] | None,
    kwarg_inputs: Mapping[str, Any] | None,
    device: torch.device,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the example call alone; the parameters are those of :func:`example_inputs`."""
    return _with_examples(_given(inputs, arg_inputs, kwarg_inputs), device)


def _given(
    inputs: Sequence[Any] | None, arg_inputs: Sequence[Any] | None, kwarg_inputs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if inputs is not None and arg_inputs is not None:
        raise CompileError("inputs and arg_inputs are two names of the same thing: give one of them")
    positional = inputs if inputs is not None else arg_inputs
    if positional is None and kwarg_inputs is None:
        raise CompileError("example inputs are needed: give inputs, kwarg_inputs or both")
    positional = _own_input(positional)
    if isinstance(positional, (torch.Tensor, Input)):
        positional = (positional,)
    if positional is not None and (
        isinstance(positional, (Mapping, str)) or not isinstance(positional, Sequence)
    ):
        hint = "; give inputs by name in kwarg_inputs" if isinstance(positional, Mapping) else ""
        raise CompileError(f"inputs is a {type(positional).__name__}, and must be a tuple or list{hint}")
    if kwarg_inputs is not None and not isinstance(kwarg_inputs, Mapping):
        raise CompileError(f"kwarg_inputs is a {type(kwarg_inputs).__name__}, and must be a dict")
    args, kwargs = tree_map(_own_input, (tuple(positional or ()), dict(kwarg_inputs or {})))
    return args, kwargs


def _own_input(leaf: Any) -> Any:
    """Turn a ``torch_tensorrt.Input`` into an `Input`; leave everything else as it is."""
    if type(leaf).__name__ != "Input" or not type(leaf).__module__.startswith("torch_tensorrt"):
        return leaf
    if leaf.is_shape_tensor:
        raise CompileError(
            f"{leaf!r} is a shape tensor, whose values decide: give a torch.Tensor with an example of them"
        )
    shapes = dict(leaf.shape) if isinstance(leaf.shape, Mapping) else {"shape": leaf.shape}
    dtype = leaf.dtype
    if not isinstance(dtype, torch.dtype):
        dtype = dtype.to(torch.dtype, use_default=True)
    return Input(**shapes, dtype=dtype, name=leaf.name)


def _with_examples(
    given: tuple[tuple[Any, ...], dict[str, Any]], device: torch.device
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = tree_map(lambda leaf: leaf.example(device) if isinstance(leaf, Input) else leaf, given)
    return args, kwargs


def _opt_shape(leaf: Any) -> tuple[int, ...] | None:
    return tuple(leaf.shape) if isinstance(leaf, (Input, torch.Tensor)) else None


def _min_shape(leaf: Any) -> tuple[int, ...] | None:
    return leaf.min_shape if isinstance(leaf, Input) else None


def _varies(leaf: Any) -> bool:
    return bool(_dimensions(leaf))


def _dimensions(leaf: Any) -> dict[int, Any] | None:
    """The dimensions of one input that vary; None if it is no tensor."""
    if isinstance(leaf, Input):
        return leaf.dynamic_dimensions()
    if not isinstance(leaf, torch.Tensor):
        return None
    dimensions: dict[int, Any] = dict.fromkeys(getattr(leaf, "_dynamo_dynamic_indices", ()), Dim.DYNAMIC)
    for limits in getattr(leaf, "_dynamo_dynamic_range", ()):
        if limits.dim in dimensions:
            dimensions[limits.dim] = Dim.DYNAMIC(min=limits.min, max=limits.max)
    return dimensions
