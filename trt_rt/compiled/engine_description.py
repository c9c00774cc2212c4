"""Describes an engine of a program for PyTorch's graphs, with the sizes that the program's graph has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trt_rt.compiled.size_bounds import expression
from trt_rt.module import TRTModule
from trt_rt.operator import EngineMeta, TensorMeta

__all__ = ["describe_engine", "describe_plan"]


def describe_engine(
    module: TRTModule, sha256: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> EngineMeta:
    """Return the description of an engine.

    Parameters
    ----------
    module : TRTModule
        Over the engine.
    sha256 : str
        Of its plan.
    inputs, outputs : sequence of torch.Tensor
        What goes in and comes out in the graph, without values; without outputs in the memory of inputs.
    """
    engine = module.engine
    tensors = {tensor.name: tensor for tensor in (*engine.inputs, *engine.outputs)}
    sizes = _Sizes()
    aliased = module.aliased_io
    described = [
        TensorMeta(
            name,
            tensors[name].dtype,
            tuple(sizes.of_input(size) for size in value.shape),
            tensors[name].is_shape_tensor,
        )
        for name, value in zip(module.input_binding_names, inputs, strict=True)
    ]
    shapes = {tensor.name: tensor.shape for tensor in described}
    values = iter(outputs)
    results = []
    for name in module.output_binding_names:
        shape: Any = shapes[aliased[name]] if name in aliased else map(sizes.of_output, next(values).shape)
        results.append(TensorMeta(name, tensors[name].dtype, tuple(shape)))
    backend = engine.backend
    return EngineMeta(
        backend if isinstance(backend, str) else backend.name,
        sha256,
        tuple(described),
        tuple(results),
        aliased,
        engine.device.type,
    )


def describe_plan(
    backend: str, sha256: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> EngineMeta:
    """Return the description of an engine that is not loaded: its tensors have numbers for names.

    Parameters
    ----------
    backend : str
        That runs the plan.
    sha256 : str
        Of the plan.
    inputs, outputs : sequence of torch.Tensor
        What goes in and comes out in the graph, without values.
    """
    sizes = _Sizes()
    given = [
        TensorMeta(f"input_{number}", value.dtype, tuple(map(sizes.of_input, value.shape)))
        for number, value in enumerate(inputs)
    ]
    results = [
        TensorMeta(f"output_{number}", value.dtype, tuple(map(sizes.of_output, value.shape)))
        for number, value in enumerate(outputs)
    ]
    return EngineMeta(backend, sha256, tuple(given), tuple(results))


class _Sizes:
    """The names that sizes have in one description."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self._unknown: dict[Any, str] = {}

    def of_input(self, size: Any) -> int | str:
        """Return a number, or the name of a size that varies."""
        found = expression(size)
        if isinstance(found, int):
            return found
        return self._names.setdefault(found, f"s{len(self._names)}")

    def of_output(self, size: Any) -> int | str:
        """Return a number, an expression over sizes of inputs, or a name for a size known after the run."""
        found = expression(size)
        if isinstance(found, int):
            return found
        text = self._written(found)
        if text is None:
            return self._unknown.setdefault(found, f"?u{len(self._unknown)}")
        return text

    def _written(self, found: Any) -> str | None:
        """An expression as text; None if the sizes of inputs do not determine it."""
        if found in self._names:
            return self._names[found]
        if found.is_Integer:
            return str(int(found)) if found >= 0 else f"(-{-int(found)})"
        parts = [self._written(part) for part in found.args]
        known = [part for part in parts if part is not None]
        name = type(found).__name__
        if not parts or len(known) != len(parts):
            return None
        if name in _BETWEEN:
            return f"({_BETWEEN[name].join(known)})"
        if name in ("Max", "Min"):
            return f"{name.lower()}({', '.join(known)})"
        return None


_BETWEEN = {
    "Add": " + ",
    "CleanDiv": " // ",
    "FloorDiv": " // ",
    "Mod": " % ",
    "Mul": " * ",
    "PythonMod": " % ",
}
