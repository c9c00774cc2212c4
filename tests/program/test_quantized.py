"""Models with explicit quantize and dequantize operators, as PT2E flows leave them."""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators

import trt_rt
from trt_rt.backend import Backend

quantized = torch.ops.quantized_decomposed


class _Quantized(torch.nn.Module):
    """A linear layer in int8, and one in float32."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(32, 16)
        self.scale = float(weight.abs().max() / 127)
        self.register_buffer(
            "weight", quantized.quantize_per_tensor(weight, self.scale, 0, -127, 127, torch.int8)
        )
        self.head = torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded = quantized.quantize_per_tensor(x, 0.05, 0, -128, 127, torch.int8)
        x = quantized.dequantize_per_tensor(rounded, 0.05, 0, -128, 127, torch.int8)
        weight = quantized.dequantize_per_tensor(self.weight, self.scale, 0, -127, 127, torch.int8)
        return self.head(torch.relu(torch.nn.functional.linear(x, weight)))


def test_it_is_taken_as_it_is_and_right() -> None:
    model, x = _Quantized().eval(), torch.randn(8, 16)
    program = trt_rt.compile(model, inputs=[x], backend="reference", min_block_size=1)
    assert program.partition.engines
    torch.testing.assert_close(program(x), model(x).detach())


def test_tensorrt_takes_all_of_it_into_one_engine(rtx: Backend) -> None:
    """Its parser is asked about each operator."""
    partition = trt_rt.compile(_Quantized().eval(), inputs=[torch.randn(8, 16)], backend=rtx, dryrun=True)
    [engine] = partition.engines
    assert sum("quantize" in operator for operator in engine.operators) == 3
    assert not partition.torch_operators
