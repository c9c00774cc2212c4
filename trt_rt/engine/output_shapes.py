"""An engine's output shapes for given input shapes, from an execution context that never runs."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch

from trt_rt._core.critical import Gate
from trt_rt._core.io_tensor import IOTensor
from trt_rt._core.profile_choice import choose_profile
from trt_rt.engine.contexts import ContextFactory
from trt_rt.engine.placement import current_device
from trt_rt.errors import ExecutionError, InputTypeError, InputValueError

__all__ = ["OutputShape", "OutputShapes", "limits_of_profile"]

OutputShape = tuple[int | None, ...]

_LARGEST_SIZE = 2**63 - 1


class OutputShapes:
    """The output shapes of one engine. It is a `ContextUser`, and several threads may use it.

    Its execution context never runs, because after a run TensorRT 8.6 returns the last run's shape for a
    data-dependent output. The context is created by the first question and kept for the next.

    Parameters
    ----------
    contexts : ContextFactory
        Makes the context.
    inputs, outputs : sequence of IOTensor
        All inputs and outputs of the engine, in its order.
    """

    def __init__(
        self, contexts: ContextFactory, inputs: Sequence[IOTensor], outputs: Sequence[IOTensor]
    ) -> None:
        self._context: Any = None  # the first attribute, so that it is freed before the engine
        self._values: list[torch.Tensor] = []  # of shape tensors; TensorRT reads their memory
        self._contexts = contexts
        self._device = contexts.handle.device
        self._inputs = {tensor.name: tensor for tensor in inputs}
        self._outputs = tuple(outputs)
        self._name = contexts.handle.name
        self._data_dependent_outputs: tuple[str, ...] | None = None
        self.gate = Gate(
            f"engine {self._name!r} was asked for output shapes while it answered that question."
        )

    def of(
        self,
        input_shapes: Mapping[str, Sequence[int]],
        shape_tensor_values: Mapping[str, Sequence[int]] | None = None,
    ) -> tuple[OutputShape, ...]:
        """As `Engine.output_shapes`."""
        self._contexts.handle.engine  # noqa: B018  raises if it was closed
        values = self._checked_values(shape_tensor_values)
        shapes = self._checked_shapes(input_shapes, values)
        return self.gate.run(self._answer, shapes, values)

    def _answer(
        self, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, tuple[int, ...]]
    ) -> tuple[OutputShape, ...]:
        # Taken out, so that an interrupt or an error drops it: its state is unknown then.
        context, self._context = self._context, None
        with current_device(self._device):
            if context is None:
                context = self._contexts.create_for_graph()
            answer = self._ask(context, shapes, values)
        self._context = context
        return answer

    def of_optimal_inputs(self) -> tuple[OutputShape, ...] | None:
        """Return the output shapes for the first profile's optimal inputs; None if it lacks an input's."""
        limits = limits_of_profile(self._inputs.values(), 0, "opt")
        return None if limits is None else self.of(*limits)

    def data_dependent_outputs(self) -> tuple[str, ...]:
        """As `Engine.data_dependent_outputs`."""
        self._contexts.handle.engine  # noqa: B018  raises if it was closed
        if self._data_dependent_outputs is None:
            self._data_dependent_outputs = self._find_data_dependent_outputs()
        return self._data_dependent_outputs

    def _find_data_dependent_outputs(self) -> tuple[str, ...]:
        if not any(output.is_dynamic for output in self._outputs):
            return ()
        shapes = self.of_optimal_inputs()
        self.gate.run(self.drop_contexts)  # the answer is kept, and a context takes memory
        if shapes is None:
            return ()
        return tuple(
            output.name for output, shape in zip(self._outputs, shapes, strict=True) if None in shape
        )

    def drop_contexts(self) -> None:
        """As `ContextUser`."""
        self._context = None
        self._values = []

    def close(self) -> None:
        """As `ContextUser`."""
        self.gate.run(self.drop_contexts)

    def _checked_values(self, given: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
        given = {} if given is None else given
        self._refuse_names(given, "shape_tensor_values")
        values = {}
        for name, tensor in self._inputs.items():
            if not tensor.is_shape_tensor:
                if name in given:
                    raise InputValueError(
                        f"input {tensor}: got values, and only shape tensors are known by their values. Give "
                        "its shape in input_shapes."
                    )
                continue
            if name not in given:
                raise InputValueError(
                    f"input {tensor}: got no values, and output shapes depend on a shape tensor's values. "
                    "Give them in shape_tensor_values."
                )
            values[name] = _whole_numbers(given[name], tensor, "values")
            if not tensor.dtype.is_floating_point and tensor.dtype is not torch.bool:
                limits = torch.iinfo(tensor.dtype)
                if any(not limits.min <= value <= limits.max for value in values[name]):
                    raise InputValueError(
                        f"input {tensor}: got values {list(values[name])}, which {tensor.dtype} cannot hold."
                    )
        return values

    def _checked_shapes(
        self, given: Mapping[str, Sequence[int]], values: Mapping[str, tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        self._refuse_names(given, "input_shapes")
        shapes = {}
        for name, tensor in self._inputs.items():
            if name in given:
                shapes[name] = _whole_numbers(given[name], tensor, "shape")
            elif tensor.is_shape_tensor and (len(tensor.shape) == 1 or not tensor.is_dynamic):
                shapes[name] = (len(values[name]),) if len(tensor.shape) == 1 else tensor.shape
            else:
                raise InputValueError(f"input {tensor}: got no shape. Give it in input_shapes.")
            if any(not 0 <= size <= _LARGEST_SIZE for size in shapes[name]):
                raise InputValueError(
                    f"input {tensor}: got shape {list(shapes[name])}, and a size is from 0 to 2**63 - 1."
                )
            if tensor.is_shape_tensor and math.prod(shapes[name]) != len(values[name]):
                raise InputValueError(
                    f"input {tensor}: got {len(values[name])} values for shape {list(shapes[name])}, which "
                    f"has {math.prod(shapes[name])} elements."
                )
        return shapes

    def _refuse_names(self, given: Any, argument: str) -> None:
        if not isinstance(given, Mapping):
            raise InputTypeError(
                f"{argument} must be a mapping from names of inputs, not {type(given).__name__}."
            )
        for name in given:
            if name not in self._inputs:
                raise InputValueError(
                    f"{argument} has {name!r}, which is no input of engine {self._name!r}; its inputs are "
                    f"{', '.join(map(repr, self._inputs)) or 'none'}."
                )

    def _ask(
        self,
        context: Any,
        shapes: Mapping[str, tuple[int, ...]],
        values: Mapping[str, tuple[int, ...]],
    ) -> tuple[OutputShape, ...]:
        inputs = list(self._inputs.values())
        profile = choose_profile(
            inputs,
            [shapes[tensor.name] for tensor in inputs],
            [values.get(tensor.name) for tensor in inputs],
            context.active_optimization_profile,
        )
        self._use_profile(context, profile)
        for tensor in inputs:
            if tensor.is_dynamic:
                done = context.set_input_shape(tensor.name, shapes[tensor.name])
                self._check(done, f"set_input_shape({tensor.name!r}, {shapes[tensor.name]})")
        before, self._values = self._values, []
        for name, held in values.items():
            tensor = self._inputs[name]
            # At least one element, because TensorRT refuses the address of an empty tensor.
            memory = torch.tensor(held or (0,), dtype=tensor.dtype, device="cpu")
            self._values.append(memory)
            self._check(context.set_tensor_address(name, memory.data_ptr()), f"set_tensor_address({name!r})")
        before.clear()  # only now, because until here the context had the addresses of these tensors
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise ExecutionError(f"engine {self._name!r}: {error}") from error
        self._check(not missing, f"infer_shapes(), which lacks {list(missing)},")
        # While PyTorch traces, sizes are tensors.
        sizes = [[int(size) for size in context.get_tensor_shape(output.name)] for output in self._outputs]
        return tuple(tuple(None if size < 0 else size for size in shape) for shape in sizes)

    def _use_profile(self, context: Any, profile: int) -> None:
        if context.active_optimization_profile == profile:
            return
        # On a stream of its own: TensorRT may copy on it, and the caller's stream may be capturing.
        stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        done = context.set_optimization_profile_async(profile, stream.cuda_stream if stream else 0)
        self._check(done, f"set_optimization_profile_async({profile})")
        if stream is not None:
            stream.synchronize()

    def _check(self, succeeded: Any, call: str) -> None:
        if succeeded is not True:
            raise ExecutionError(f"engine {self._name!r}: TensorRT refused {call} for its output shapes.")


def limits_of_profile(
    inputs: Iterable[IOTensor], profile: int, limit: Literal["min", "opt", "max"]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]] | None:
    """Return the input shapes and shape-tensor values at one limit of an optimization profile.

    Parameters
    ----------
    inputs : iterable of IOTensor
        All inputs of the engine.
    profile : int
        The profile's number.
    limit : {"min", "opt", "max"}
        The limit.

    Returns
    -------
    tuple of (dict, dict) or None
        The arguments of `Engine.output_shapes`; None if the profile does not say them for every input.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    values: dict[str, tuple[int, ...]] = {}
    for tensor in inputs:
        if not tensor.is_dynamic and not tensor.is_shape_tensor:
            shapes[tensor.name] = tensor.shape
        elif profile < len(tensor.profiles):
            (values if tensor.is_shape_tensor else shapes)[tensor.name] = getattr(
                tensor.profiles[profile], limit
            )
        else:
            return None
    return shapes, values


def _whole_numbers(given: Any, tensor: IOTensor, what: str) -> tuple[int, ...]:
    try:
        return tuple(operator.index(number) for number in given)
    except TypeError:
        raise InputTypeError(
            f"input {tensor} needs {what} as a sequence of whole numbers; got {given!r}."
        ) from None
