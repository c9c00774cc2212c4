"""The modes of a module, which the context managers of `trt_rt.runtime` switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trt_rt.backend import RuntimeSettings

__all__ = ["Modes"]


@dataclass(frozen=True)
class Modes:
    """The modes of one module.

    Attributes
    ----------
    pre_allocated_outputs : int
        The number of sets of outputs that are reused in turn, for each set of input shapes; 0 for fresh
        outputs.
    cuda_graphs : bool or None
        Whether calls replay CUDA graphs; None for the process's default, `set_cudagraphs_mode`.
    whole_graph : bool
        Whether an `enable_cudagraphs` is on that gives the engine no graph of its own: it captures the whole
        program, or observes the first call to choose the kind of graph.
    max_graphs : int
        The number of CUDA graphs that are kept for each stream that calls.
    output_allocator : bool
        Whether TensorRT allocates every output. It always allocates outputs whose size depends on data.
    optimization_profile : int or None
        The only optimization profile that calls may use; None for the first that admits the inputs.
    dynamic_resources : bool
        Whether scratch memory is sized for the shapes in use and shared by modules of one stream.
    profiler : object or None
        TensorRT's ``IProfiler``, which gets the time of every layer.
    runtime_settings : RuntimeSettings or None
        Settings of TensorRT-RTX; None for its own.
    """

    pre_allocated_outputs: int = 0
    cuda_graphs: bool | None = None
    whole_graph: bool = False
    max_graphs: int = 32
    output_allocator: bool = False
    optimization_profile: int | None = None
    dynamic_resources: bool = False
    profiler: Any = None
    runtime_settings: RuntimeSettings | None = None
