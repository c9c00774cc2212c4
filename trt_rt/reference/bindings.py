"""The state that callers give a context: a profile, input shapes, addresses, output allocators."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch

from trt_rt._core.dlpack import tensor_from_address
from trt_rt._core.plain_pytorch import plain_pytorch
from trt_rt.errors import ExecutionError, InputValueError
from trt_rt.reference.loaded_engine import LoadedEngine
from trt_rt.reference.program import CPU
from trt_rt.reference.shape_inference import InferredShapes

__all__ = ["Bindings"]

_REMEMBERED_SHAPES = 64

Shape = tuple[int, ...]


class Bindings:
    """The profile, shapes, addresses and output allocators of a context.

    Parameters
    ----------
    engine : LoadedEngine
        The engine.

    Attributes
    ----------
    profile : int
        The active optimization profile.
    addresses : dict
        By tensor name; only those that have been set.
    allocators : dict
        By output name; only those that are set.
    """

    def __init__(self, engine: LoadedEngine) -> None:
        self._engine = engine
        self._known: OrderedDict[tuple[Any, ...], InferredShapes] = OrderedDict()
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.select_profile(0)

    def select_profile(self, profile: int) -> None:
        """Make a profile active, and forget the input shapes."""
        self.profile = profile
        self._shapes: list[Shape | None] = [
            None if tensor.is_dynamic else tensor.shape for tensor in self._engine.plan.inputs
        ]

    def input_shape(self, number: int) -> Shape:
        """Return an input's shape; -1 for each dynamic dimension while it is not set."""
        shape = self._shapes[number]
        return self._engine.plan.inputs[number].shape if shape is None else shape

    def set_shape(self, name: str, shape: Shape) -> None:
        """Set an input's shape.

        Raises
        ------
        InputValueError
            There is no such input, or the profile does not admit the shape.
        """
        number = self._engine.input_numbers.get(name)
        if number is None:
            raise InputValueError(
                f"{name!r} is not an input; the inputs are {list(self._engine.input_numbers)}"
            )
        allowed = self._engine.plan.profiles[self.profile].shapes[number]
        if not allowed.admits(shape):
            raise InputValueError(
                f"shape {list(shape)} of input {name!r} is outside profile {self.profile}: "
                f"min {list(allowed.min)}, max {list(allowed.max)}"
            )
        self._shapes[number] = shape

    def set_address(self, name: str, address: int) -> None:
        """Set a tensor's address.

        Raises
        ------
        InputValueError
            There is no such tensor, or its address must be aligned and is not.
        """
        engine = self._engine
        number = engine.input_numbers.get(name)
        if number is None and name not in engine.output_numbers:
            raise InputValueError(f"{name!r} is not an I/O tensor of the engine")
        alignment = engine.alignment
        if number is not None and engine.plan.inputs[number].location == "host":
            alignment = engine.plan.inputs[number].dtype.itemsize
        if address < 0 or address % alignment:
            raise InputValueError(f"address {address:#x} of {name!r} is not aligned to {alignment} bytes")
        self.addresses[name] = address

    def missing(self) -> list[str]:
        """Return the inputs whose shape is not set, and the shape tensors whose address is not set."""
        return [
            tensor.name
            for number, tensor in enumerate(self._engine.plan.inputs)
            if self._shapes[number] is None
            or (tensor.location == "host" and not self._has_memory(tensor.name, tensor.shape))
        ]

    def shapes(self) -> tuple[Shape, ...]:
        """Return all input shapes.

        Raises
        ------
        ExecutionError
            One is not set.
        """
        missing = self.missing()
        if missing:
            raise ExecutionError(f"not all shapes are specified: {missing} are missing")
        return tuple(self.input_shape(number) for number in range(len(self._shapes)))

    def shape_tensors(self) -> dict[int, torch.Tensor]:
        """Read the values of the shape tensors.

        Returns
        -------
        dict
            Copies, by number of the input.

        Raises
        ------
        ExecutionError
            The values of one are outside the profile.
        """
        tensors = {}
        for number, tensor in enumerate(self._engine.plan.inputs):
            allowed = self._engine.plan.profiles[self.profile].values[number]
            if allowed is None:
                continue
            address = self.addresses.get(tensor.name, 0)
            with plain_pytorch():
                copy = tensor_from_address(address, tensor.shape, tensor.dtype, CPU).clone()
                values = tuple(copy.reshape(-1).tolist())
            if not allowed.admits(values):
                raise ExecutionError(
                    f"values {list(values)} of shape tensor {tensor.name!r} are outside profile "
                    f"{self.profile}: min {list(allowed.min)}, max {list(allowed.max)}"
                )
            tensors[number] = copy
        return tensors

    def infer(self, shapes: tuple[Shape, ...], shape_tensors: dict[int, torch.Tensor]) -> InferredShapes:
        """Infer shapes and memory. The results for the last 64 sets of shapes and values are kept.

        Raises
        ------
        ExecutionError
            The shapes or values do not fit the network.
        """
        with plain_pytorch():
            values = tuple(tuple(tensor.reshape(-1).tolist()) for tensor in shape_tensors.values())
        key = (shapes, values)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._engine.infer(shapes, shape_tensors)
            if len(self._known) > _REMEMBERED_SHAPES:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known

    def check_memory(self, shapes: tuple[Shape, ...], inferred: InferredShapes) -> None:
        """Check that every input and output has memory.

        Raises
        ------
        ExecutionError
            One has none; the message names it.
        """
        for tensor, shape in zip(self._engine.plan.inputs, shapes, strict=True):
            if not self._has_memory(tensor.name, shape):
                raise ExecutionError(f"the address of input {tensor.name!r} is not set")
        for output, shape in zip(self._engine.plan.outputs, inferred.outputs, strict=True):
            if output.name in self.allocators:
                continue
            if -1 in shape:
                raise ExecutionError(
                    f"the shape of output {output.name!r} depends on data: it needs an output allocator"
                )
            if not self._has_memory(output.name, shape):
                raise ExecutionError(f"output {output.name!r} has neither an address nor an output allocator")
            if output.aliased_input is not None:
                self._check_alias(output.name, shape, output.aliased_input)

    def _check_alias(self, output: str, shape: Shape, source: str) -> None:
        source_shape = self.input_shape(self._engine.input_numbers[source])
        if shape != source_shape:
            raise ExecutionError(
                f"output {output!r} has shape {list(shape)}, and input {source!r}, in whose memory it lies, "
                f"has {list(source_shape)}"
            )
        if math.prod(shape) and self.addresses[output] != self.addresses[source]:
            raise ExecutionError(
                f"output {output!r} is aliased with input {source!r}, but their addresses are "
                f"{self.addresses[output]:#x} and {self.addresses[source]:#x}"
            )

    def _has_memory(self, name: str, shape: Shape) -> bool:
        # PyTorch's tensors without elements have no memory: address 0 is right for them, and only for them.
        return bool(self.addresses.get(name, 0)) or math.prod(shape) == 0
