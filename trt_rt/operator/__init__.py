"""The operator ``trt_rt::execute_engine``, which stands for an engine in graphs that PyTorch saves."""

from __future__ import annotations

from trt_rt.operator.definition import OPERATOR, register_kernel
from trt_rt.operator.meta import EngineMeta, TensorMeta

__all__ = ["OPERATOR", "EngineMeta", "TensorMeta", "register_kernel"]
