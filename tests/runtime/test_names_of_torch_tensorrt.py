"""What code that was written for Torch-TensorRT's controls says to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import trt_rt
import trt_rt.reference
from tests.reference import plans
from tests.reference.plans import eager_affine
from tests.runtime.budget_engines import streaming_plan
from trt_rt import TRTModule


@pytest.mark.parametrize(
    ("control", "arguments"),
    [
        (trt_rt.enable_cudagraphs, {}),
        (trt_rt.enable_output_allocator, {}),
        (trt_rt.enable_pre_allocated_outputs, {}),
        (trt_rt.enable_profiling, {}),
        (trt_rt.optimization_profile, {"profile": 0}),
        (trt_rt.use_dynamically_allocated_resources, {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_compiled_module(control: Callable[..., Any], arguments: dict[str, Any]) -> None:
    module = TRTModule(plans.affine())
    x = torch.randn(3, 7)
    with control(compiled_module=module, **arguments) as run:
        torch.testing.assert_close(run(x), eager_affine(x))
    with pytest.raises(TypeError, match="both a module and compiled_module="):
        control(module, compiled_module=module, **arguments)


def test_compiled_module_of_weight_streaming_and_refit() -> None:
    module = TRTModule(streaming_plan(64))
    with trt_rt.weight_streaming(compiled_module=module) as streaming:
        assert streaming.total_device_budget > 0
    network = torch.nn.Linear(4, 2)
    refittable = TRTModule(trt_rt.reference.build(network, (torch.zeros(3, 4),), refittable=True))
    assert trt_rt.refit(compiled_module=refittable, state_dict=network.state_dict()).missing == ()


def test_set_pre_allocated_output() -> None:
    first, second = TRTModule(plans.affine()), TRTModule(plans.affine())
    program = torch.nn.Sequential(first, second)
    x = torch.randn(3, 7)
    control = trt_rt.enable_pre_allocated_outputs(program)
    kept, other = program(x), program(x)
    assert kept.data_ptr() != other.data_ptr()
    control.set_pre_allocated_output(True)
    for module in (first, second):
        assert module(x).data_ptr() == module(x).data_ptr()
    control.set_pre_allocated_output(False)
    for module in (first, second):
        kept, other = module(x), module(-x)
        assert kept.data_ptr() != other.data_ptr()
        torch.testing.assert_close(kept, eager_affine(x))


def test_set_pre_allocated_output_within_the_context() -> None:
    module = TRTModule(plans.affine())
    control = trt_rt.enable_pre_allocated_outputs(module, buffers=2)
    with control:
        assert module.modes.pre_allocated_outputs == 2
        control.set_pre_allocated_output(True)
        assert module.modes.pre_allocated_outputs == 2
    assert module.modes.pre_allocated_outputs == 0


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_refusals_are_runtime_errors_too(error: type[Exception]) -> None:
    with pytest.raises(error, match="depends on data"), trt_rt.enable_cudagraphs(TRTModule(plans.nonzero())):
        pass
    streaming = trt_rt.weight_streaming(TRTModule(streaming_plan(64)))
    with pytest.raises(error, match="not -1"):
        streaming.device_budget = -1


def _kinds() -> tuple[bool, bool]:
    return trt_rt.get_cudagraphs_mode(), trt_rt.get_whole_cudagraphs_mode()


def test_which_graphs_are_on() -> None:
    module = TRTModule(plans.affine())
    program = torch.nn.Sequential(module, torch.nn.ReLU())
    assert _kinds() == (False, False)
    with trt_rt.enable_cudagraphs(module):
        assert _kinds() == (True, False)
        kinds_elsewhere: list[tuple[bool, bool]] = []
        thread = threading.Thread(target=lambda: kinds_elsewhere.append(_kinds()))
        thread.start()
        thread.join()
        assert kinds_elsewhere == [(False, False)]
    assert _kinds() == (False, False)
    with trt_rt.enable_cudagraphs(program):
        assert _kinds() == (False, True)
    with trt_rt.enable_cudagraphs(program, whole_graph=False):
        assert _kinds() == (True, False)
    assert _kinds() == (False, False)


class Python(torch.nn.Module):
    """A program that only a call can tell the kind of."""

    def __init__(self, module: TRTModule, *, adds: bool) -> None:
        super().__init__()
        self.module = module
        self.adds = adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.module(x)
        return y + 1 if self.adds else y


@pytest.mark.parametrize("adds", [False, True])
def test_which_graphs_are_on_after_a_first_call(adds: bool) -> None:
    with trt_rt.enable_cudagraphs(Python(TRTModule(plans.affine()), adds=adds)) as run:
        assert _kinds() == (False, False)
        run(torch.randn(3, 7))
        assert _kinds() == (not adds, adds)
    assert _kinds() == (False, False)


def test_enable_cudagraphs_can_be_entered_again() -> None:
    module = TRTModule(plans.affine())
    x = torch.randn(3, 7)
    graphs = trt_rt.enable_cudagraphs(module)
    for entry in range(1, 4):
        with graphs as run:
            for _ in range(3):
                torch.testing.assert_close(run(x), eager_affine(x))
            with pytest.raises(RuntimeError, match="is entered already"), graphs:
                pass
        assert module.stats()["captures"] == entry
        assert module.modes.cuda_graphs is None
