"""Compares the output sizes of an engine's description in a graph with what the engine says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trt_rt.engine import Engine
from trt_rt.errors import ExecutionError, InputError

if TYPE_CHECKING:
    from trt_rt.operator import EngineMeta

__all__ = ["wrong_output_size"]


def wrong_output_size(engine: Engine, meta: EngineMeta) -> str | None:
    """Return what is wrong with the described output sizes, in words; None if nothing was found.

    The engine is asked at the smallest, the usual and the largest sizes of each profile. Sizes that depend on
    the values of shape tensors are not compared.

    Parameters
    ----------
    engine : Engine
        Has inputs and outputs of the described names and ranks.
    meta : EngineMeta
        The description.
    """
    inputs = {tensor.name: tensor for tensor in engine.inputs}
    if not any(tensor.is_dynamic for tensor in engine.outputs) or any(
        tensor.is_shape_tensor or not tensor.profiles for tensor in engine.inputs
    ):
        return None
    number = min((len(tensor.profiles) for tensor in engine.inputs), default=0)
    for profile in range(number):
        for limit in ("min", "opt", "max"):
            sizes: dict[str, int] = {}
            for each in meta.inputs:
                limits = getattr(inputs[each.name].profiles[profile], limit)
                for described, size in zip(each.shape, limits, strict=True):
                    if isinstance(described, str):
                        sizes.setdefault(described, size)
            wrong = _wrong_at(engine, meta, sizes)
            if wrong is not None:
                return wrong
    return None


def _wrong_at(engine: Engine, meta: EngineMeta, sizes: dict[str, int]) -> str | None:
    shapes = {
        each.name: tuple(sizes[size] if isinstance(size, str) else size for size in each.shape)
        for each in meta.inputs
    }
    try:
        answers = engine.output_shapes(shapes)
    except (InputError, ExecutionError):
        return None  # the engine accepts no inputs of these sizes
    actual = dict(zip((tensor.name for tensor in engine.outputs), answers, strict=True))
    for output, described in zip(meta.outputs, meta.output_sizes, strict=True):
        for wanted, size in zip(described, actual[output.name], strict=True):
            if isinstance(wanted, str):
                continue  # known after the run only
            value = _value(wanted, sizes)
            if value != size:
                known = "known after the run only" if size is None else f"{size}"
                name = output.name
                return f"for inputs of the shapes {shapes} a size of output {name!r} is {known}, not {value}"
    return None


def _value(size: Any, sizes: dict[str, int]) -> Any:
    try:
        return size(sizes) if callable(size) else size
    except ZeroDivisionError:
        return None
