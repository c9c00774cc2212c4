"""Scratch memory that there is not enough of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import trt_rt
from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.backend import load
from trt_rt.runtime import use_dynamically_allocated_resources


def greedy_module(size: int) -> TRTModule:
    """An engine that asks for `size` bytes of scratch memory."""
    backend = load("reference")
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
    return TRTModule(trt_rt.Engine.from_bytes(plans.affine(), backend=backend))


@pytest.mark.parametrize("size", [2**50, 2**63 - 1])
def test_an_absurd_size_is_a_lack_of_memory(size: int) -> None:
    module = greedy_module(size)
    x = torch.randn(3, 7)
    with use_dynamically_allocated_resources(module) as called:
        for _ in range(2):
            with pytest.raises(MemoryError, match=str(size)):
                called(x)
    torch.testing.assert_close(module(x), torch.relu(x) * 2 + 1)
