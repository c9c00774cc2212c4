"""Requests that are joined into one call."""

from __future__ import annotations

import torch

import trt_rt
from trt_rt import ExecutionError
from trt_rt.integrations.batch_runner import BatchRunner
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


class _Centred(torch.nn.Module):
    """Its result for one row depends on the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


def test_requests_can_be_kept_apart() -> None:
    x = trt_rt.Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(8, 3))
    program = trt_rt.compile(_Centred().eval(), inputs=[x], backend="reference")
    runner = BatchRunner(program, ProgramInterface.of(program.exported()), torch.device("cpu"))
    requests = [{"x": torch.randn(rows, 3)} for rows in (1, 2, 8)]
    for request, result in zip(requests, runner.run(requests, join=False), strict=True):
        assert isinstance(result, dict)
        torch.testing.assert_close(result["output"], _Centred()(request["x"]))
    [refused] = runner.run([{"x": torch.zeros(9, 3)}], join=False)
    assert isinstance(refused, trt_rt.InputError)
