"""Programs as trt_rt.compile writes them, around engines that are given.

The code comes from the writer that compile uses; only the graph is made here instead of exported, which under
callgrind would take minutes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph
from torch.utils._pytree import tree_structure

import trt_rt
from trt_rt.compiled import Partition, Program
from trt_rt.compiled.call_writer import write_call
from trt_rt.compiled.calling_convention import CallingConvention

__all__ = ["chain"]


def chain(engines: Sequence[trt_rt.TRTModule], between: Any, example: torch.Tensor) -> Program:
    """Return a program that calls engines one after the other, with an operator of PyTorch between them."""
    graph = Graph()
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(example)
    value = graph.placeholder("x")
    value.meta["val"] = fake
    for number in range(len(engines)):
        if number:
            value = graph.call_function(between, (value,))
            value.meta["val"] = fake
        value = graph.call_module(f"engine_{number}", (value,))
        value.meta["val"] = fake
    graph.output((value,))
    convention = CallingConvention(
        in_spec=tree_structure(((0,), {})),
        out_spec=tree_structure(0),
        signature=inspect.signature(_forward),
        examples=[example],
    )
    call = write_call(convention, graph, {})
    named = {f"engine_{number}": engine for number, engine in enumerate(engines)}
    return Program(call, named, torch.nn.Module(), Partition("null", ()))


def _forward(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError  # only its signature is read
