"""Requests that are joined into one call."""

from __future__ import annotations

import torch

import trt_rt
from trt_rt import ExecutionError
from trt_rt.integrations.batching import run_batches
from trt_rt.integrations.interface import ProgramInterface


class Words(torch.nn.Module):
    """An embedding that PyTorch runs, and a layer that an engine runs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 4)
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(self.embedding(ids)))


def test_a_request_that_pytorch_refuses_spoils_no_other() -> None:
    model = Words().eval()
    ids = trt_rt.Input(min_shape=(1, 5), opt_shape=(2, 5), max_shape=(8, 5), dtype=torch.int64)
    program = trt_rt.compile(
        model, inputs=[ids], backend="reference", min_block_size=1, torch_executed_ops=["aten.embedding"]
    )
    interface = ProgramInterface.of(program.exported())
    good = torch.tensor([[1, 2, 3, 4, 5]])
    first, refused, last = run_batches(program, interface, [{"ids": good}, {"ids": good + 9}, {"ids": good}])
    assert isinstance(refused, ExecutionError)
    assert "in PyTorch failed: IndexError" in str(refused)
    for answer in (first, last):
        assert isinstance(answer, dict)
        torch.testing.assert_close(answer["output"], model(good))
