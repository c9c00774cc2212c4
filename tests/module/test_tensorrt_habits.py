"""A module is right over a TensorRT that reports and copies more than the reference backend does."""

from __future__ import annotations

import pytest
import torch

from tests.quirky_tensorrt import Quirk, quirky_backend
from tests.reference import plans
from trt_rt import Engine, TRTModule
from trt_rt.runtime import enable_cudagraphs


def module_with(quirks: Quirk, plan: bytes) -> TRTModule:
    return TRTModule(Engine.from_bytes(plan, backend=quirky_backend(quirks), device="cpu"))


def test_an_output_that_depended_on_data_once_always_does() -> None:
    """After a run TensorRT may report the size of that run, also for inputs of other shapes."""
    module = module_with(Quirk.REMEMBERED_OUTPUT_SHAPES, plans.nonzero())
    few = torch.zeros(3, 5)
    few.view(-1)[:4] = 1
    for x in (few, torch.ones(4, 5), few, torch.zeros(2, 5), torch.ones(6, 5)):
        indices, doubled = module(x)
        torch.testing.assert_close(indices, torch.nonzero(x))
        torch.testing.assert_close(doubled, x * 2)


def repeated(x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    return x[torch.arange(int(length)) % 4]


def test_values_of_a_shape_tensor_that_change_are_told_again() -> None:
    """TensorRT may copy the values when the address is set, and not look there again."""
    module = module_with(Quirk.COPIED_SHAPE_VALUES, plans.shape_tensor())
    x, length = torch.randn(4), torch.tensor([3])
    for value in (3, 5, 3, 12, 5, 3):
        length.fill_(value)
        torch.testing.assert_close(module(x, length), repeated(x, length))


@pytest.mark.parametrize("graphs", [False, True])
def test_values_of_bound_shape_tensors_are_told_again(graphs: bool) -> None:
    module = module_with(Quirk.COPIED_SHAPE_VALUES, plans.shape_tensor())
    x, long = torch.randn(4), torch.tensor([8])
    with enable_cudagraphs(module, whole_graph=False) if graphs else torch.no_grad():
        bound = module.bind(x, torch.tensor([3]))
        for _ in range(3):
            torch.testing.assert_close(bound(), repeated(x, torch.tensor([3])))
            torch.testing.assert_close(module(x, long), repeated(x, long))
