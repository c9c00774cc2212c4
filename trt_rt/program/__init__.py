"""Programs: models compiled to engines, with PyTorch operators where no engine can run them."""

from __future__ import annotations

from trt_rt.program.compiling import compile
from trt_rt.program.inputs import Input
from trt_rt.program.partition import EnginePart, Partition, PartTensor, TorchOperator
from trt_rt.program.program import Program

__all__ = ["EnginePart", "Input", "PartTensor", "Partition", "Program", "TorchOperator", "compile"]
