"""Copies of compiled programs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import trt_rt


class Counter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.relu(self.layer(x)) * self.calls


def test_a_copy_shares_the_buffers_and_a_deep_copy_has_its_own() -> None:
    x = torch.randn(2, 4)
    model = Counter().eval()
    expected = torch.relu(model.layer(x)).detach()
    program = trt_rt.compile(model, inputs=[x], backend="reference", min_block_size=1)
    shallow, deep = copy.copy(program), copy.deepcopy(program)
    torch.testing.assert_close(program(x), expected)
    torch.testing.assert_close(shallow(x), 2 * expected)
    torch.testing.assert_close(program(x), 3 * expected)
    torch.testing.assert_close(deep(x), expected)
    assert shallow.engine_0.engine is program.engine_0.engine


def test_a_program_is_saved_not_pickled() -> None:
    program = trt_rt.compile(
        Counter().eval(), inputs=[torch.zeros(2, 4)], backend="reference", min_block_size=1
    )
    with pytest.raises(TypeError, match=r"trt_rt\.save"):
        pickle.dumps(program)
