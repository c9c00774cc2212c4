"""Outputs whose size depends on data, as far as that is known before an engine is called."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import torch

from trt_rt._core.io_tensor import IOTensor
from trt_rt.engine.engine import Engine

__all__ = ["data_dependent_outputs", "refuse_data_dependent"]

_known: WeakKeyDictionary[Engine, tuple[str, ...]] = WeakKeyDictionary()


def refuse_data_dependent(engines: Iterable[Engine]) -> None:
    """Make sure that no engine has outputs whose size depends on data: they cannot be run as CUDA graphs.

    Raises
    ------
    ValueError
        If one has, with the reason.
    """
    for engine in engines:
        names = data_dependent_outputs(engine)
        if names:
            raise ValueError(
                f"engine {engine.name!r} cannot be run as a CUDA graph: the size of output "
                f"{' and '.join(map(repr, names))} depends on data, so its memory is allocated in the run."
            )


def data_dependent_outputs(engine: Engine) -> tuple[str, ...]:
    """Names of the outputs whose size is known after a run only.

    Found by asking TensorRT for output shapes with the inputs' shapes, and shape tensors' values, of the
    first optimization profile. What does not show there (an output whose size depends on data for some shapes
    only) is found at the first call, which raises.

    Parameters
    ----------
    engine : Engine
        Open. A context without scratch memory is made for the question, once for each engine.

    Raises
    ------
    ClosedError
        If the engine was closed.
    BackendError
        If there is no memory for the context.
    """
    if engine not in _known:
        _known[engine] = _ask(engine) if any(output.is_dynamic for output in engine.outputs) else ()
    return _known[engine]


def _ask(engine: Engine) -> tuple[str, ...]:
    inputs = engine.inputs
    if any((tensor.is_dynamic or tensor.is_shape_tensor) and not tensor.profiles for tensor in inputs):
        return ()  # nothing says with which shapes to ask
    context = engine.new_context_factory().create_for_graph()
    values = []  # must live as long as TensorRT may read them
    for tensor in inputs:
        if tensor.is_shape_tensor:
            values.append(_optimal_values(tensor))
            if context.set_tensor_address(tensor.name, values[-1].data_ptr()) is not True:
                return ()
        if tensor.is_dynamic:
            optimal = tuple(values[-1].shape) if tensor.is_shape_tensor else tensor.profiles[0].opt
            if context.set_input_shape(tensor.name, optimal) is not True:
                return ()
    if context.infer_shapes():
        return ()
    return tuple(
        output.name
        for output in engine.outputs
        if -1 in tuple(context.get_tensor_shape(output.name)) and output.aliased_input is None
    )


def _optimal_values(tensor: IOTensor) -> torch.Tensor:
    values = torch.tensor(tensor.profiles[0].opt, dtype=tensor.dtype)
    return values if tensor.is_dynamic else values.reshape(tensor.shape)
