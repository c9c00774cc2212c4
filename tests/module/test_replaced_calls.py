"""What a call does may be replaced: in the instance, in its class, by another class."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTModule


@pytest.fixture
def module() -> TRTModule:
    return TRTModule(plans.affine())


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 7)


def eager(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) * 2 + 1


class Doubled(TRTModule):
    """Another forward."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return super().forward(*inputs, **named) * 2


class Called(TRTModule):
    """Another ``__call__``."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return "called"


@pytest.mark.parametrize("calls_before", [0, 2])
def test_another_class(module: TRTModule, x: torch.Tensor, calls_before: int) -> None:
    for _ in range(calls_before):
        module(x)
    module.__class__ = Doubled
    torch.testing.assert_close(module(x), eager(x) * 2)
    out = torch.empty(3, 7)
    torch.testing.assert_close(module(x, out=out), eager(x) * 2)
    module.__class__ = TRTModule
    torch.testing.assert_close(module(x), eager(x))
    module.__class__ = Called
    assert module(x) == "called"
    module.__class__ = TRTModule
    torch.testing.assert_close(module(x), eager(x))


def test_a_forward_that_a_class_gets_later(x: torch.Tensor) -> None:
    class Late(TRTModule):
        pass

    module = Late(plans.affine())
    torch.testing.assert_close(module(x), eager(x))
    Late.forward = lambda self, *inputs: "late"  # type: ignore[method-assign]
    other = Late(plans.affine())
    assert other(x) == "late"
