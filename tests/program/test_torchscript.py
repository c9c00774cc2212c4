"""trt_rt.compile takes TorchScript modules."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import trt_rt
from trt_rt.errors import CompileError

# PyTorch warns about TorchScript's age at every use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean((2, 3)))


def traced(model: nn.Module) -> Any:
    return torch.jit.trace(model, torch.ones(2, 3, 8, 8))


def loaded(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.jit.save(traced(model), file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.parametrize("script", [traced, loaded, torch.jit.script])
def test_a_torchscript_module_is_compiled(script: Any) -> None:
    torch.manual_seed(0)
    model = Net().eval()
    image = trt_rt.Input(min_shape=(1, 3, 8, 8), opt_shape=(2, 3, 8, 8), max_shape=(4, 3, 8, 8))
    program = trt_rt.compile(script(model), inputs=[image], backend="reference")
    assert len(program.partition.engines) == 1
    for batch in (1, 4):
        x = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x))


def test_what_cannot_be_converted_is_refused_with_the_way_out() -> None:
    @torch.jit.script
    def halve(x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() > 1):
            x = x * 0.5
        return x

    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return halve(x)

    with pytest.raises(CompileError, match=r"cannot convert the TorchScript module Halves.*Python model"):
        trt_rt.compile(torch.jit.script(Halves()), inputs=[torch.ones(3)], backend="reference")


def test_compiling_warns_about_nothing() -> None:
    script = traced(Net().eval())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trt_rt.compile(script, inputs=[torch.ones(2, 3, 8, 8)], backend="reference")
