"""Ctrl-C in the call of a compiled program leaves the thread as it was."""

from __future__ import annotations

import pytest
import torch

import trt_rt
from tests.behaviours.interrupts import Interrupter
from tests.behaviours.other_thread import on_another_thread

pytestmark = pytest.mark.behaviour(34)


class _Split(torch.nn.Module):
    """Two engines, and an operator between them that stays in PyTorch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.fft.fft(torch.relu(x * 2 + 1)).real * 3)


def test_gradients_are_on_afterwards() -> None:
    """The program computes without gradients, and switches them on again wherever the signal comes."""
    model, x = _Split(), torch.randn(3, 4)
    program = trt_rt.compile(model, inputs=[x], backend="reference", cache_dir=None, min_block_size=1)
    assert len(program.partition.engines) == 2
    expected = model(x)

    def is_right() -> None:
        torch.testing.assert_close(program(x), expected)

    def tried(n: int) -> Interrupter:
        interrupter = Interrupter("signal", n)
        try:
            interrupter.run(is_right)
            assert torch.is_grad_enabled(), f"gradients are off after an interrupt at {interrupter.place}"
        finally:
            torch.set_grad_enabled(True)
        assert interrupter.raised == interrupter.fired, f"the interrupt at {interrupter.place} is lost"
        is_right()
        return interrupter

    tried(0)  # makes what only the first call makes
    for n, is_reference in enumerate(tried(0).counted, 1):
        if not is_reference:
            tried(n)
    on_another_thread(is_right)
