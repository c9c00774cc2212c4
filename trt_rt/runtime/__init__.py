"""Controls of modules that run engines, under Torch-TensorRT's names."""

from trt_rt.backend import RuntimeSettings
from trt_rt.capture import WholeGraph
from trt_rt.module.mode_manager import ModeManager
from trt_rt.runtime.cudagraphs import (
    enable_cudagraphs,
    get_cudagraphs_mode,
    get_whole_cudagraphs_mode,
    set_cudagraphs_mode,
    set_whole_cudagraphs_mode,
)
from trt_rt.runtime.dynamic_resources import use_dynamically_allocated_resources
from trt_rt.runtime.multi_device_safe_mode import (
    MultiDeviceSafeMode,
    get_multi_device_safe_mode,
    set_multi_device_safe_mode,
)
from trt_rt.runtime.optimization_profile import optimization_profile
from trt_rt.runtime.output_allocator import enable_output_allocator
from trt_rt.runtime.pre_allocated_outputs import enable_pre_allocated_outputs
from trt_rt.runtime.profiling import LayerProfile, LayerTime, enable_profiling
from trt_rt.runtime.refit import RefitResult, refit
from trt_rt.runtime.runtime_config import runtime_config
from trt_rt.runtime.weight_streaming import WeightStreaming, weight_streaming

__all__ = [
    "LayerProfile",
    "LayerTime",
    "ModeManager",
    "MultiDeviceSafeMode",
    "RefitResult",
    "RuntimeSettings",
    "WeightStreaming",
    "WholeGraph",
    "enable_cudagraphs",
    "enable_output_allocator",
    "enable_pre_allocated_outputs",
    "enable_profiling",
    "get_cudagraphs_mode",
    "get_multi_device_safe_mode",
    "get_whole_cudagraphs_mode",
    "optimization_profile",
    "refit",
    "runtime_config",
    "set_cudagraphs_mode",
    "set_multi_device_safe_mode",
    "set_whole_cudagraphs_mode",
    "use_dynamically_allocated_resources",
    "weight_streaming",
]
