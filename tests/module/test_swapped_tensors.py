"""torch.utils.swap_tensors, which nn.Module.to uses, works on the tensors of calls."""

from __future__ import annotations

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTModule
from trt_rt.runtime import enable_cudagraphs


@pytest.fixture
def module() -> TRTModule:
    return TRTModule(plans.affine())


def eager(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) * 2 + 1


@pytest.mark.parametrize("with_graphs", [False, True])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_inputs(module: TRTModule, calls: int, with_graphs: bool) -> None:
    """Swapped, each is what the other was, to the engine too."""
    a, b = torch.randn(3, 7), torch.randn(3, 7)
    with enable_cudagraphs(module) if with_graphs else torch.no_grad():
        for _ in range(calls):
            module(a)
        torch.utils.swap_tensors(a, b)
        for x in (a, b, a):
            torch.testing.assert_close(module(x), eager(x))


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_inputs_of_other_shapes(module: TRTModule, calls: int) -> None:
    a, b = torch.randn(3, 7), torch.randn(5, 7)
    for _ in range(calls):
        module(a)
        module(b)
    torch.utils.swap_tensors(a, b)
    for x in (a, b, a):
        torch.testing.assert_close(module(x), eager(x))


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_outputs_of_the_callers(module: TRTModule, calls: int) -> None:
    x = torch.randn(3, 7)
    a, b = torch.empty(3, 7), torch.empty(3, 7)
    for _ in range(calls):
        module(x, out=a)
    torch.utils.swap_tensors(a, b)
    for out in (a, b):
        module(x, out=out)
        torch.testing.assert_close(out, eager(x))


def test_pre_allocated_results(module: TRTModule) -> None:
    """The module's memory is not the caller's; what the caller swapped away, the module makes anew."""
    module.set_pre_allocated_outputs(True)
    for _ in range(4):
        x = torch.randn(3, 7)
        result, other = module(x), torch.zeros(2)
        torch.testing.assert_close(result, eager(x))
        torch.utils.swap_tensors(result, other)
        torch.testing.assert_close(other, eager(x))
