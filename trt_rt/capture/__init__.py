"""Programs of engines and PyTorch operators that run as one CUDA graph."""

from trt_rt.capture.kind import ProgramKind, program_kind
from trt_rt.capture.observed_program import ObservedProgram
from trt_rt.capture.whole_graph import WholeGraph

__all__ = ["ObservedProgram", "ProgramKind", "WholeGraph", "program_kind"]
