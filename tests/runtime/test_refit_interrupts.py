"""Ctrl-C during a refit leaves all engines with their old weights, or all with the new ones."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.interrupts import KINDS, Interrupter, spread
from tests.behaviours.other_thread import on_another_thread
from tests.runtime.test_refit import X, network, plan
from trt_rt import Engine, TRTModule, refit


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_leaves_old_or_new_weights(kind):
    """Two engines of a program have weights of one kind whenever it comes, and can be refitted again."""
    engines = [Engine.from_bytes(plan(), name=name) for name in ("first", "second")]
    expected = [network(seed)(network(seed)(X)[:, :4]) for seed in (0, 1)]

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = [TRTModule(engine) for engine in engines]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)[:, :4].contiguous())

    program = Program()
    states = [network(seed).state_dict() for seed in (0, 1)]

    def is_whole() -> None:
        y = program(X)
        assert any(torch.allclose(y, each) for each in expected)

    def back() -> None:
        refit(program, states[0])
        torch.testing.assert_close(program(X), expected[0])

    def tried(n: int) -> Interrupter:
        refit(program, states[0])
        interrupter = Interrupter(kind, n)
        interrupter.run(lambda: refit(program, states[1]))
        assert interrupter.raised == interrupter.fired, f"the interrupt at {interrupter.place} is lost"
        on_another_thread(is_whole)
        on_another_thread(back)
        return interrupter

    for n in spread(tried(0).counted):
        tried(n)
