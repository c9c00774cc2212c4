"""A compiled program: a module whose call is one generated function over engines and PyTorch operators."""

from __future__ import annotations

from trt_rt.compiled.partition import EnginePart, Partition, PartTensor, TorchOperator
from trt_rt.compiled.program import Program

__all__ = ["EnginePart", "PartTensor", "Partition", "Program", "TorchOperator"]
