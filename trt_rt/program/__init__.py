"""`trt_rt.compile`: models to engines, with PyTorch operators where no engine can run them."""

from __future__ import annotations

from trt_rt.program.compiling import compile
from trt_rt.program.inputs import Input

__all__ = ["Input", "compile"]
