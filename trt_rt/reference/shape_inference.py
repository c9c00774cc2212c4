"""Infers the shapes of a network's outputs without running it on data.

The network runs on PyTorch's meta device, where tensors have shapes and no values. Shape tensors, and the
values that are computed from them, are real, so that sizes taken from them are known. A value that depends on
device memory is unknown, and so is everything computed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trt_rt.errors import ExecutionError
from trt_rt.reference.dry_run import META, dry_run
from trt_rt.reference.io_tensors import OutputTensor
from trt_rt.reference.memory_limit import check_size, check_tensors
from trt_rt.reference.plain_execution import inference
from trt_rt.reference.plan import Plan
from trt_rt.reference.program import Program, Step
from trt_rt.reference.results import Result
from trt_rt.reference.weights import WeightStore

__all__ = ["InferredShapes", "infer_shapes"]

_LARGEST_INFERRED = 2**63 - 1
"""Bytes. Inference allocates nothing. A tensor that the machine cannot hold is refused where it is allocated:
an output by the caller, with an out-of-memory error, and every other tensor when its layer runs."""

_LARGEST_ON_HOST = 256 << 20
"""Bytes of a tensor that is computed from shape tensors."""


class _Unknown:
    """A value that depends on values in device memory."""


_UNKNOWN = _Unknown()


@dataclass(frozen=True)
class InferredShapes:
    """The result of inference for one set of input shapes.

    Attributes
    ----------
    outputs : tuple of tuple of int
        Shapes in the plan's order; -1 for a dimension that is known only when the network has run.
    layers : tuple of (tuple of int or None)
        Shape of each layer's result; None where it is unknown, or no tensor.
    unknown : frozenset of int
        Positions of the layers whose results are known only when the network has run.
    scratch_bytes : int
        Largest sum of the sizes of the intermediate results that are needed at one time.
    """

    outputs: tuple[tuple[int, ...], ...]
    layers: tuple[tuple[int, ...] | None, ...]
    unknown: frozenset[int]
    scratch_bytes: int


@inference
def infer_shapes(
    plan: Plan,
    program: Program,
    weights: WeightStore,
    shapes: Sequence[tuple[int, ...]],
    shape_tensors: dict[int, torch.Tensor],
) -> InferredShapes:
    """Infer shapes.

    Parameters
    ----------
    plan, program, weights
        The network.
    shapes : sequence of tuple of int
        The inputs' shapes.
    shape_tensors : dict
        The inputs in host memory, by number, with their values.

    Returns
    -------
    InferredShapes
        Shapes and memory.

    Raises
    ------
    ExecutionError
        The inputs do not fit together, or a layer refuses their shapes.
    """
    _check_relations(plan, shapes)
    values: list[Any] = [
        shape_tensors[index] if index in shape_tensors else _without_values(tensor.dtype, shape)
        for index, (tensor, shape) in enumerate(zip(plan.inputs, shapes, strict=True))
    ]
    values += [_without_values(weight.dtype, weight.shape) for weight in plan.weights]
    sizes = [0] * (len(values) + len(program.steps))
    layers: list[tuple[int, ...] | None] = []
    unknown: set[int] = set()
    live = peak = 0
    for step in program.steps:
        operands = {index: _operand(program, weights, step, index, values) for index in step.reads}
        result = _result(step, operands)
        values.append(result)
        if result is _UNKNOWN:
            unknown.add(len(layers))
        layers.append(tuple(result.shape) if isinstance(result, torch.Tensor) else None)
        sizes[step.result] = _new_bytes(result, operands.values())
        live += sizes[step.result]
        peak = max(peak, live)
        live -= sum(sizes[index] for index in step.last_uses)
    check_size(peak, 1)
    for index, tensor in zip(program.outputs, plan.outputs, strict=True):
        if values[index] is not _UNKNOWN:
            _check_output(tensor, values[index])
    outputs = tuple(
        tuple(values[index].shape)
        if isinstance(values[index], torch.Tensor)
        else tuple(_known_dim(dim, shapes) for dim in tensor.known_dims)
        for index, tensor in zip(program.outputs, plan.outputs, strict=True)
    )
    return InferredShapes(outputs, tuple(layers), frozenset(unknown), peak)


def _check_output(tensor: OutputTensor, value: object) -> None:
    try:
        Result(tensor.dtype, tensor.shape).check(value)
    except ExecutionError as error:
        raise ExecutionError(f"output {tensor.name!r}: {error}") from error


def _without_values(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    try:
        return torch.empty(shape, dtype=dtype, device=META)
    except RuntimeError as error:
        # Each dimension is within bounds, but their product is not.
        raise ExecutionError(f"a tensor of shape {list(shape)} is too large: {error}") from error


def _check_relations(plan: Plan, shapes: Sequence[tuple[int, ...]]) -> None:
    for relation in plan.relations:
        size = shapes[relation.input][relation.axis]
        other = shapes[relation.of_input][relation.of_axis]
        needed = relation.scale * other + relation.offset
        if size != needed:
            raise ExecutionError(
                f"dimension {relation.axis} of {plan.inputs[relation.input].name!r} is {size} and must be "
                f"{needed}, because dimension {relation.of_axis} of "
                f"{plan.inputs[relation.of_input].name!r} is {other}"
            )


def _operand(program: Program, weights: WeightStore, step: Step, index: int, values: list[Any]) -> Any:
    if step.on_host and program.is_weight(index):
        return weights.host(index - program.first_weight)
    value = values[index]
    if program.is_upload(step, index) and isinstance(value, torch.Tensor):
        return value.to(META)
    return value


def _result(step: Step, operands: dict[int, Any]) -> Any:
    if step.needs_values or any(operand is _UNKNOWN for operand in operands.values()):
        return _UNKNOWN
    if step.on_host and any(
        isinstance(operand, torch.Tensor) and operand.device == META for operand in operands.values()
    ):
        return _UNKNOWN
    try:
        if step.on_host:
            # The layer is about to run on real values, for every new set of shapes.
            dry_run(step, operands, _LARGEST_ON_HOST)
        result = step.call(operands, META)
        check_tensors(result, _LARGEST_INFERRED)
        return result
    except NotImplementedError:
        # PyTorch cannot infer the result of this operator without running it.
        return _UNKNOWN
    except Exception as error:
        raise ExecutionError(
            f"layer {step.node.name!r} ({step.node.operator.name}): {type(error).__name__}: {error}"
        ) from error


def _new_bytes(result: Any, operands: Iterable[Any]) -> int:
    """Return the bytes of a result that it does not share with its operands."""
    results = result if isinstance(result, (list, tuple)) else [result]
    operands = [operand for operand in operands if isinstance(operand, torch.Tensor)]
    shared = {operand.untyped_storage()._cdata for operand in operands}
    return sum(
        tensor.untyped_storage().nbytes()
        for tensor in results
        if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in shared
    )


def _known_dim(dim: int | tuple[int, int] | None, shapes: Sequence[tuple[int, ...]]) -> int:
    if dim is None:
        return -1
    if isinstance(dim, int):
        return dim
    index, axis = dim
    return shapes[index][axis]
