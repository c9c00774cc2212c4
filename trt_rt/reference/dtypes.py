"""Element types: TensorRT's, PyTorch's, and the names under which a plan holds them."""

from __future__ import annotations

import torch

from trt_rt._core.dtype_name import dtype_name
from trt_rt.reference.enums import DataType

__all__ = ["DTYPES_BY_NAME", "TENSORRT_DTYPES"]

TENSORRT_DTYPES: dict[torch.dtype, DataType] = {
    torch.float32: DataType.FLOAT,
    torch.float16: DataType.HALF,
    torch.bfloat16: DataType.BF16,
    torch.int8: DataType.INT8,
    torch.uint8: DataType.UINT8,
    torch.int32: DataType.INT32,
    torch.int64: DataType.INT64,
    torch.bool: DataType.BOOL,
    torch.float8_e4m3fn: DataType.FP8,
}
"""Types of I/O tensors, PyTorch's and TensorRT's."""

DTYPES_BY_NAME: dict[str, torch.dtype] = {
    dtype_name(dtype): dtype
    for dtype in (
        *TENSORRT_DTYPES,
        torch.float64,
        torch.int16,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.complex64,
        torch.complex128,
        torch.float8_e5m2,
    )
}
"""Types of weights and of tensors inside a network, by their names in a plan."""
