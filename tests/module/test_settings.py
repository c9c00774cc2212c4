"""Lasting settings of a module, and the methods that users of Torch-TensorRT know."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import trt_rt
from tests.reference import plans
from tests.reference.plans import eager_affine
from tests.runtime.budget_engines import streaming_plan
from trt_rt import (
    BackendError,
    RuntimeSettings,
    SettingError,
    TorchTensorRTModule,
    TRTModule,
    enable_cudagraphs,
    enable_pre_allocated_outputs,
)


def test_the_name_of_the_other_module_class() -> None:
    assert TorchTensorRTModule is TRTModule
    assert trt_rt.module.TorchTensorRTModule is TRTModule


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        ({"cuda_graphs": True, "max_graphs": 3}, {"cuda_graphs": True, "max_graphs": 3}),
        ({"cuda_graphs": None}, {"cuda_graphs": None}),
        ({"pre_allocated_outputs": True}, {"pre_allocated_outputs": 1}),
        ({"pre_allocated_outputs": 3}, {"pre_allocated_outputs": 3}),
        ({"pre_allocated_outputs": 0}, {"pre_allocated_outputs": 0}),
        ({"output_allocator": True}, {"output_allocator": True}),
        ({"optimization_profile": 0}, {"optimization_profile": 0}),
        ({"optimization_profile": "auto"}, {"optimization_profile": None}),
        ({"dynamic_resources": True}, {"dynamic_resources": True}),
        ({"runtime_settings": None}, {"runtime_settings": None}),
    ],
)
def test_a_setting_lasts(module: TRTModule, x: torch.Tensor, settings: Any, modes: Any) -> None:
    module.configure(**settings)
    for _ in range(2):
        torch.testing.assert_close(module(x), eager_affine(x))
    assert {name: getattr(module.modes, name) for name in modes} == modes


def test_results_follow_the_settings(module: TRTModule, x: torch.Tensor) -> None:
    module.configure(pre_allocated_outputs=True)
    assert module(x).data_ptr() == module(x).data_ptr()
    module.configure(cuda_graphs=True)
    module(x)
    module(x)
    assert module.stats()["replays"] > 0
    module.configure(pre_allocated_outputs=False, cuda_graphs=False)
    first, second = module(x), module(x)
    assert first.data_ptr() != second.data_ptr()


def test_a_control_goes_back_to_a_setting(module: TRTModule) -> None:
    module.configure(pre_allocated_outputs=3)
    with enable_pre_allocated_outputs(module, buffers=2):
        assert module.modes.pre_allocated_outputs == 2
    assert module.modes.pre_allocated_outputs == 3


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"graphs": True}, TypeError, "no setting graphs; there are cuda_graphs,"),
        ({"max_graphs": 0}, ValueError, "from 1 to"),
        ({"pre_allocated_outputs": -1}, ValueError, "from 1 to"),
        ({"pre_allocated_outputs": 1.5}, TypeError, "float"),
        ({"optimization_profile": 1}, SettingError, "has profile 0 only"),
        ({"optimization_profile": "first"}, SettingError, "'auto' or None"),
        ({"optimization_profile": True}, TypeError, "'auto' or None"),
        ({"runtime_settings": RuntimeSettings()}, BackendError, "TensorRT-RTX"),
        ({"cuda_graphs": True, "output_allocator": True}, SettingError, "exclude each other"),
    ],
)
def test_what_is_refused_changes_nothing(
    module: TRTModule, settings: Any, error: type[Exception], words: str
) -> None:
    before = module.modes
    with pytest.raises(error, match=words):
        module.configure(dynamic_resources=True, **settings)
    assert module.modes == before


def test_settings_that_exclude_what_is_on(module: TRTModule) -> None:
    module.configure(cuda_graphs=True)
    with pytest.raises(SettingError, match="enable_cudagraphs is on"):
        module.set_use_output_allocator(True)
    with pytest.raises(SettingError, match="enable_cudagraphs is on"):
        module.enable_profiling()
    module.configure(cuda_graphs=False, output_allocator=True)
    with pytest.raises(SettingError, match="enable_output_allocator is on"):
        module.configure(cuda_graphs=True)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, SettingError])
@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(lambda: TRTModule(plans.affine(), ["nothing"]), id="names"),
        pytest.param(lambda: TRTModule(plans.nonzero()).configure(cuda_graphs=True), id="data-dependent"),
        pytest.param(lambda: TRTModule(streaming_plan(64)).set_device_memory_budget(-1), id="budget"),
        pytest.param(lambda: _graphs_and_allocator(), id="graphs and output allocator"),
    ],
)
def test_refusals_that_torch_tensorrt_raises_as_runtime_errors(refused: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        refused()


def _graphs_and_allocator() -> None:
    module = TRTModule(plans.affine())
    with trt_rt.enable_output_allocator(module), enable_cudagraphs(module):
        pass


def test_the_output_allocator(module: TRTModule, x: torch.Tensor) -> None:
    module.set_use_output_allocator(True)
    y = module(x)
    assert y.untyped_storage().nbytes() == y.nbytes
    with pytest.raises(trt_rt.InputError, match="Leave enable_output_allocator"):
        module(x, out=torch.empty(3, 7))
    module.set_use_output_allocator(False)
    torch.testing.assert_close(module(x, out=torch.empty(3, 7)), eager_affine(x))


def test_dynamically_allocated_resources(module: TRTModule, x: torch.Tensor) -> None:
    module.use_dynamically_allocated_resources(True)
    torch.testing.assert_close(module(x), eager_affine(x))
    assert module.modes.dynamic_resources
    module.use_dynamically_allocated_resources(False)
    assert not module.modes.dynamic_resources


@pytest.mark.parametrize("graphs", [False, True])
def test_the_active_profile(graphs: bool) -> None:
    module = TRTModule(plans.profiles())
    module.configure(cuda_graphs=graphs)
    assert module.active_optimization_profile is None
    for rows, profile in ((2, 0), (9, 1), (9, 1), (2, 0)):
        module(torch.randn(rows, 7))
        assert module.active_optimization_profile == profile
    module.set_optimization_profile(1)
    assert module.active_optimization_profile == 1
    with pytest.raises(trt_rt.InputError, match="optimization profile 1"):
        module(torch.randn(2, 7))
    module.set_optimization_profile("auto")
    module(torch.randn(2, 7))
    assert module.active_optimization_profile == 0


def test_layers_as_json(module: TRTModule) -> None:
    assert json.loads(module.get_layer_info()) == module.engine.inspect()


def test_profiling(module: TRTModule, x: torch.Tensor) -> None:
    profile = module.enable_profiling()
    for _ in range(3):
        module(x)
    module.disable_profiling()
    assert profile.layers
    assert {time.runs for time in profile.layers} == {3}
    module(x)
    assert {time.runs for time in profile.layers} == {3}
    with enable_cudagraphs(module):
        torch.testing.assert_close(module(x), eager_affine(x))


def test_the_budget() -> None:
    module = TRTModule(streaming_plan(64))
    whole = module.get_streamable_device_memory_budget()
    assert whole > 0
    assert module.get_device_memory_budget() == whole
    assert module.set_device_memory_budget(whole // 2) == module.get_device_memory_budget() == whole // 2
    assert module.set_device_memory_budget(whole * 2) == whole
    assert 0 <= module.get_automatic_device_memory_budget() <= whole
    with pytest.raises(TypeError):
        module.set_device_memory_budget(1.5)


def test_the_plan(module: TRTModule, x: torch.Tensor) -> None:
    torch.testing.assert_close(TRTModule(module.serialized_engine)(x), eager_affine(x))
