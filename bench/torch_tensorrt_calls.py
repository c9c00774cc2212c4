"""Torch-TensorRT's C++ runtime over the same plan, where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from prepared_call import PreparedCall

import trt_rt


@dataclass(frozen=True)
class Call:
    """One mode of Torch-TensorRT.

    Attributes
    ----------
    name : str
        In the table.
    prepared : PreparedCall
        With the inputs at hand.
    uses_graphs : bool
        Whether the engine runs as a CUDA graph.
    turn : callable
        Switches the graphs of Torch-TensorRT on; they are a state of the process.
    """

    name: str
    prepared: PreparedCall
    uses_graphs: bool
    turn: Callable[[], AbstractContextManager[Any]]


def is_installed() -> bool:
    return importlib.util.find_spec("torch_tensorrt") is not None


def description() -> str:
    """The version, for the head of a table."""
    if not is_installed():
        return "Torch-TensorRT not installed"
    import torch_tensorrt

    return f"Torch-TensorRT {torch_tensorrt.__version__}"


def calls(plan: bytes, engine: trt_rt.Engine, inputs: tuple[torch.Tensor, ...]) -> Iterator[Call]:
    """Every mode of its runtime, each with an engine of its own; nothing where it is not installed."""
    if not is_installed():
        return
    from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

    for pre_allocated, graphs in ((False, False), (True, False), (False, True), (True, True)):
        module = TorchTensorRTModule(
            plan,
            input_binding_names=[tensor.name for tensor in engine.inputs],
            output_binding_names=[tensor.name for tensor in engine.outputs],
            name="bench",
        )
        module.set_pre_allocated_outputs(pre_allocated)
        name = ", ".join(["module"] + ["graphs"] * graphs + ["pre-allocated"] * pre_allocated)
        yield Call(name, PreparedCall(module, inputs), graphs, _graphs if graphs else contextlib.nullcontext)


@contextlib.contextmanager
def _graphs() -> Iterator[None]:
    from torch_tensorrt.runtime import set_cudagraphs_mode

    set_cudagraphs_mode(True)
    try:
        yield
    finally:
        set_cudagraphs_mode(False)
