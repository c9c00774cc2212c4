"""Scratch memory: where it lies, and what happens when there is too little or TensorRT refuses it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.quirky_tensorrt import Quirk, quirky_backend
from tests.reference import plans
from trt_rt import Engine, ExecutionError, TRTModule, enable_cudagraphs, use_dynamically_allocated_resources
from trt_rt.backend import load
from trt_rt.engine.contexts import ContextFactory
from trt_rt.engine.workspaces import ALIGNMENT, shared_workspace


def greedy_module(size: int) -> TRTModule:
    """An engine that asks for `size` bytes of scratch memory."""
    backend = copy.copy(load("reference"))
    create = backend.create_context

    def create_context(engine: Any, name: str, **options: Any) -> Any:
        context = create(engine, name, **options)

        class Greedy:
            def __getattr__(self, attribute: str) -> Any:
                return getattr(context, attribute)

            def update_device_memory_size_for_shapes(self) -> int:
                return context.update_device_memory_size_for_shapes() and size

        return Greedy()

    backend.create_context = create_context  # type: ignore[method-assign]
    return TRTModule(Engine.from_bytes(plans.affine(), backend=backend))


@pytest.mark.parametrize("size", [2**50, 2**63 - 1])
def test_an_absurd_size_is_a_lack_of_memory(size: int) -> None:
    module = greedy_module(size)
    x = torch.randn(3, 7)
    with use_dynamically_allocated_resources(module) as called:
        for _ in range(2):
            with pytest.raises(MemoryError, match=str(size)):
                called(x)
    torch.testing.assert_close(module(x), torch.relu(x) * 2 + 1)


def test_every_address_is_aligned() -> None:
    # Held together, so that no two have one address.
    held = []
    for size in range(1, 4096, 64):  # a larger one each time, so that each is allocated anew
        held.append(shared_workspace(torch.device("cpu"), 0, size))
        assert held[-1].data_ptr() % ALIGNMENT == 0
        assert held[-1].numel() >= size
    assert len({workspace.data_ptr() for workspace in held}) == len(held)


@pytest.mark.parametrize("control", [use_dynamically_allocated_resources, enable_cudagraphs])
def test_an_engine_that_ignores_memory_with_less_alignment(control: Any) -> None:
    backend = quirky_backend(Quirk.MISALIGNED_MEMORY_IGNORED)
    module = TRTModule(Engine.from_bytes(plans.affine(), backend=backend, device="cpu"))
    with control(module) as called:
        for rows in (1, 2, 3, 5, 8):
            x = torch.randn(rows, 7)
            torch.testing.assert_close(called(x), torch.relu(x) * 2 + 1)


def test_a_refusal_is_an_error() -> None:
    engine = Engine.from_bytes(plans.affine(), device="cpu")
    context = ContextFactory(engine.handle).create_for_graph()
    with pytest.raises(ExecutionError, match=r"refuses 4096 bytes of scratch memory at 0x8.*not aligned"):
        load("reference").set_device_memory(context, 8, 4096)
