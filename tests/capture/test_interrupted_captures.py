"""What a capture switches on is off after an interrupt at any of its bytecodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import trt_rt
from tests.behaviours.interrupts import KINDS, Interrupter
from trt_rt._core.autograd_modes import in_inference_mode, without_grad
from trt_rt.capture.engine_calls import EngineCalls
from trt_rt.capture.observing import observing
from trt_rt.capture.random_numbers import SeesRandomNumbers
from trt_rt.capture.stream import run_on
from trt_rt.module.hooks import hooks_of

pytestmark = [pytest.mark.behaviour(34), pytest.mark.parametrize("kind", KINDS)]


def _interrupt_everywhere(kind: str, code: Callable[[], object], state: Callable[[], Any]) -> None:
    """Run code, interrupted at each of its bytecodes in turn; it must leave a state as it was."""
    before = state()
    Interrupter(kind, 0).run(code)  # CPython 3.12 traces no bytecodes of a function that has never run
    n = 0
    while True:
        n += 1
        interrupter = Interrupter(kind, n)
        interrupter.run(code)
        assert state() == before, interrupter.place
        if not interrupter.fired:
            break
        assert interrupter.raised, interrupter.place
    assert n > 5, "nothing was interrupted"


def test_hooks_of_followed_calls(kind):
    """A hook that is registered, but whose handle is lost, is removed too."""
    plan = trt_rt.reference.build(torch.nn.ReLU(), [torch.zeros(2)])
    module = trt_rt.TRTModule(plan)
    module.register_forward_hook(lambda *_: None)
    x = torch.zeros(2)

    def options() -> list[dict[int, bool]]:
        return [module._forward_hooks_always_called.copy(), module._forward_pre_hooks_with_kwargs.copy()]

    _interrupt_everywhere(
        kind,
        lambda: EngineCalls([module], []).follow(lambda: module(x)),
        lambda: [hooks.copy() for hooks in (*hooks_of(module), *options())],
    )


def test_modes_of_autograd(kind):
    """Gradients, and inference mode."""

    def state() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def code() -> None:
        in_inference_mode(True, lambda: in_inference_mode(False, lambda: without_grad(state)))

    _interrupt_everywhere(kind, code, state)


def test_observing_operators(kind):
    """The dispatch mode that looks for random numbers."""
    _interrupt_everywhere(
        kind,
        lambda: observing(SeesRandomNumbers(), lambda: torch.zeros(2) + 1),
        torch._C._len_torch_dispatch_stack,
    )


@pytest.mark.gpu
def test_current_stream_and_device(kind):
    """Another stream is current only within the function."""
    stream = torch.cuda.Stream()
    seen = []
    _interrupt_everywhere(
        kind,
        lambda: run_on(stream, lambda: seen.append(torch.cuda.current_stream())),
        lambda: (torch.cuda.current_stream(), torch.cuda.current_device()),
    )
    assert seen[-1] == stream
