"""What a call does may be replaced: in the instance, in its class, by another class."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTModule

ROUNDS = 2000


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
    torch.testing.assert_close(module(x), plans.eager_affine(x) * 2)
    out = torch.empty(3, 7)
    torch.testing.assert_close(module(x, out=out), plans.eager_affine(x) * 2)
    module.__class__ = TRTModule
    torch.testing.assert_close(module(x), plans.eager_affine(x))
    module.__class__ = Called
    assert module(x) == "called"
    module.__class__ = TRTModule
    torch.testing.assert_close(module(x), plans.eager_affine(x))


def test_a_forward_that_a_class_gets_later(x: torch.Tensor) -> None:
    class Late(TRTModule):
        pass

    module = Late(plans.affine())
    torch.testing.assert_close(module(x), plans.eager_affine(x))
    Late.forward = lambda self, *inputs: "late"  # type: ignore[method-assign]
    other = Late(plans.affine())
    assert other(x) == "late"


def _memory_of(rounds: int, module: TRTModule) -> int:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(rounds):
            module.forward = print  # type: ignore[method-assign, assignment]
            del module.forward
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_replacing_forward_again_and_again_keeps_no_memory(module: TRTModule, x: torch.Tensor) -> None:
    _memory_of(10, module)
    assert _memory_of(ROUNDS, module) < ROUNDS, "less than a byte for each time"
    torch.testing.assert_close(module(x), plans.eager_affine(x))


def test_replacing_hooks_again_and_again_keeps_no_memory(module: TRTModule, x: torch.Tensor) -> None:
    """Code of PyTorch's replaces the dicts of hooks as a whole."""

    def replace(rounds: int) -> None:
        for _ in range(rounds):
            module._forward_hooks = type(module._forward_hooks)()

    replace(10)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        replace(ROUNDS)
        assert tracemalloc.get_traced_memory()[0] - before < ROUNDS
    finally:
        tracemalloc.stop()
    module.register_forward_hook(lambda *_: "hooked")
    assert module(x) == "hooked"


def test_another_forward_of_the_class_itself(monkeypatch: pytest.MonkeyPatch, x: torch.Tensor) -> None:
    forward = TRTModule.forward
    monkeypatch.setattr(TRTModule, "forward", lambda self, *inputs: forward(self, *inputs) * 2)
    module = TRTModule(plans.affine(), device="cpu")
    torch.testing.assert_close(module(x), plans.eager_affine(x) * 2)
    monkeypatch.undo()
    torch.testing.assert_close(TRTModule(module.engine)(x), plans.eager_affine(x))
