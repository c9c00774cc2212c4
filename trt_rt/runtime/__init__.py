"""Controls of modules that run engines, under Torch-TensorRT's names."""

from trt_rt.runtime.cudagraphs import (
    enable_cudagraphs,
    get_cudagraphs_mode,
    get_whole_cudagraphs_mode,
    set_cudagraphs_mode,
    set_whole_cudagraphs_mode,
)
from trt_rt.runtime.weight_streaming import WeightStreaming, weight_streaming
from trt_rt.runtime.whole_graph import WholeGraph

__all__ = [
    "WeightStreaming",
    "WholeGraph",
    "enable_cudagraphs",
    "get_cudagraphs_mode",
    "get_whole_cudagraphs_mode",
    "set_cudagraphs_mode",
    "set_whole_cudagraphs_mode",
    "weight_streaming",
]
