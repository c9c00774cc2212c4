"""The control of pre-allocated outputs: memory that is allocated once and reused by every call."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch.export import ExportedProgram

from trt_rt.module.counts import checked_count
from trt_rt.module.find_engines import as_module
from trt_rt.module.mode_manager import ModeManager
from trt_rt.runtime.compiled_module import takes_compiled_module

__all__ = ["EnablePreAllocatedOutputs", "enable_pre_allocated_outputs"]


@takes_compiled_module
def enable_pre_allocated_outputs(
    module: torch.nn.Module | ExportedProgram, buffers: SupportsIndex = 1
) -> EnablePreAllocatedOutputs:
    """Reuse output memory: a result is then valid until the next call of the stream (CPU: thread).

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.
    buffers : int, optional
        How many sets of outputs are used in turn, for a loop that holds several results: a result is then
        valid until `buffers` calls later.

    Returns
    -------
    EnablePreAllocatedOutputs
        A context manager. ``as`` binds the module to call.

    Raises
    ------
    ValueError
        There is no engine in `module`, or `buffers` is less than 1 or more than 65,536.
    TypeError
        `module` is neither a module nor a program, or `buffers` is not an integer.

    Notes
    -----
    Every set of input shapes, on every stream, has memory of its own, as large as its outputs; it is freed
    on exit, or with the last result that a caller holds. Outputs that TensorRT allocates are not affected.
    Nor are engines that have an output in an input's memory: all their other outputs are fresh.

    Examples
    --------
    >>> with enable_pre_allocated_outputs(module) as fast:
    ...     y = fast(x)
    """
    count = checked_count("buffers", buffers, "sets of outputs")
    return EnablePreAllocatedOutputs(module, count)


class EnablePreAllocatedOutputs(ModeManager[torch.nn.Module]):
    """Pre-allocated outputs for a block, or for good; `enable_pre_allocated_outputs` makes it."""

    def __init__(self, module: torch.nn.Module | ExportedProgram, buffers: int) -> None:
        super().__init__(
            "enable_pre_allocated_outputs",
            module,
            lambda engine: {"pre_allocated_outputs": buffers},
            as_module,
        )
        self._buffers = buffers

    def set_pre_allocated_output(self, enable: bool) -> None:
        """Switch pre-allocated outputs on or off for all engines of the module, without ``with``.

        Parameters
        ----------
        enable : bool
            Within a ``with`` block over this, it counts until the block ends.
        """
        for engine in self._engines:
            engine.set_pre_allocated_outputs(enable, buffers=self._buffers)
