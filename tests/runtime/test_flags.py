"""Flags of settings and controls are truth values; what is refused changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

import trt_rt
from tests.reference import plans
from trt_rt import TRTModule
from trt_rt import runtime as controls

pytestmark = pytest.mark.behaviour(40)

_NOT_FLAGS = ["False", "", 0, 1, 1.0, [], numpy.bool_(True), torch.tensor(True)]


@pytest.fixture
def module() -> TRTModule:
    return TRTModule(plans.affine(), device="cpu")


@pytest.mark.parametrize("value", _NOT_FLAGS, ids=repr)
@pytest.mark.parametrize("name", ["cuda_graphs", "dynamic_resources", "output_allocator"])
def test_settings(module: TRTModule, name: str, value: Any) -> None:
    before = module.executors.modes
    with pytest.raises(TypeError, match=f"{name}=.*True or False"):
        module.configure(max_graphs=7, **{name: value})
    assert module.executors.modes == before


_CALLS: dict[str, Callable[[TRTModule, Any], Any]] = {
    "set_cudagraphs_mode": lambda module, value: controls.set_cudagraphs_mode(value),
    "set_whole_cudagraphs_mode": lambda module, value: controls.set_whole_cudagraphs_mode(value),
    "set_multi_device_safe_mode": lambda module, value: controls.set_multi_device_safe_mode(value),
    "whole_graph": lambda module, value: controls.enable_cudagraphs(module, whole_graph=value),
    "frozen": lambda module, value: controls.enable_cudagraphs(module, frozen=value),
    "dynamically_allocate_resources": controls.use_dynamically_allocated_resources,
    "set_pre_allocated_output": lambda module, value: controls.enable_pre_allocated_outputs(
        module
    ).set_pre_allocated_output(value),
    "set_pre_allocated_outputs": lambda module, value: module.set_pre_allocated_outputs(value),
    "set_use_output_allocator": lambda module, value: module.set_use_output_allocator(value),
    "method use_dynamically_allocated_resources": lambda module, value: (
        module.use_dynamically_allocated_resources(value)
    ),
    "strict": lambda module, value: controls.refit(module, {}, strict=value),
    "requires_output_allocator": lambda module, value: TRTModule(
        module.engine, requires_output_allocator=value
    ),
    "move_inputs": lambda module, value: TRTModule(module.engine, move_inputs=value),
}


@pytest.mark.parametrize("name", _CALLS)
def test_calls(module: TRTModule, name: str) -> None:
    modes = module.executors.modes
    for value in _NOT_FLAGS:
        with pytest.raises(TypeError, match="True or False"):
            _CALLS[name](module, value)
    assert module.executors.modes == modes
    assert not controls.get_cudagraphs_mode()
    assert not controls.get_whole_cudagraphs_mode()
    assert not trt_rt.runtime.get_multi_device_safe_mode()
