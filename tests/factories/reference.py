"""Engines of the reference backend: on the CPU always, on CUDA where there is a GPU."""

from __future__ import annotations

from typing import Any

import torch

from tests.built_once import built_once
from tests.factories.networks import network
from trt_rt import reference

__all__ = ["make_cpu", "make_cuda"]


def make_cpu(kind: str) -> dict[str, Any] | None:
    """An engine that runs on the CPU."""
    return _make(kind, "cpu")


def make_cuda(kind: str) -> dict[str, Any] | None:
    """An engine that runs on the current CUDA device."""
    return _make(kind, "cuda")


def _make(kind: str, device: str) -> dict[str, Any] | None:
    source = network(kind, device)
    if source is None:
        return None
    place = torch.device(device)
    return {
        "plan": _plan(kind, device),
        "backend": "reference",
        "device": place,
        "inputs": list(source.inputs),
        "outputs": list(source.outputs),
        "example": lambda n: source.example(n, place),
        "expected": source.expected,
        "weights": None if source.weight is None else {"weight": source.weight},
    }


@built_once
def _plan(kind: str, device: str) -> bytes:
    source = network(kind, device)
    assert source is not None
    return reference.build(
        source.module(),
        source.example(3, torch.device("cpu")),
        # The module's forward takes all of its inputs as one variadic argument.
        dynamic_shapes=None if source.dynamic_shapes() is None else (source.dynamic_shapes(),),
        profiles=source.profiles,
        input_names=source.inputs,
        output_names=source.outputs,
        shape_inputs=source.shape_inputs,
        aliases=source.aliases,
        device=device,
        streamable_weights=source.weight is not None,
        refittable=source.weight is not None,
        name=kind,
    )
