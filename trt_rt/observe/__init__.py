"""What calls do: traces, ranges for Nsight, and an explanation in words."""

from trt_rt.observe.engine_call import EngineCall
from trt_rt.observe.explaining import explain
from trt_rt.observe.explanation import Explanation, ProgramCall
from trt_rt.observe.nvtx import enable_nvtx
from trt_rt.observe.profiling import Trace, profile

__all__ = ["EngineCall", "Explanation", "ProgramCall", "Trace", "enable_nvtx", "explain", "profile"]
