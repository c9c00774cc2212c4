"""``build``: from a PyTorch module to a reference plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

__all__ = ["build"]


def build(
    module_or_exported_program: torch.nn.Module | ExportedProgram,
    arg_inputs: Sequence[Any] | None = None,
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    shape_inputs: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    device: str | torch.device = "cpu",
    streamable_weights: bool = False,
    refittable: bool = False,
    name: str = "",
) -> bytes:
    """Build a plan for the reference backend.

    Parameters
    ----------
    module_or_exported_program : torch.nn.Module or torch.export.ExportedProgram
        The network. It may have the control flow that export can trace, and must not change its buffers.
    arg_inputs : sequence, optional
        Example inputs; an exported program that has its own needs none. A dimension that is to be dynamic
        should be at least 2 here, because torch.export treats 0 and 1 as constants.
    kwarg_inputs : mapping, optional
        Example inputs by keyword.
    dynamic_shapes
        As for ``torch.export.export``; only for a module.
    profiles : sequence of mapping, optional
        Optimization profiles: for each input ``(min, opt, max)`` shapes, and for each shape tensor
        ``(min, opt, max)`` **values**. Inputs of constant shape may be left out. By default a single profile
        with the ranges of `dynamic_shapes` (2**31 - 1 where they have no end; for shape tensors all
        values), best at the example.
    input_names, output_names : sequence of str, optional
        Names of the I/O tensors, in order; by default the names of ``forward``'s parameters, and
        ``output0``, ``output1``, ... A None that the network returns is left out. New values of inputs that
        the network changes in place are outputs too, after those that it returns, and are called
        ``<input>_out`` by default.
    shape_inputs : sequence of str
        Inputs that are shape tensors: int32 or int64, at most one dimension, in host memory, their values
        known when shapes are inferred.
    aliases : mapping, optional
        Of output names to the names of inputs into whose memory they are written, besides those that the
        network changes in place.
    device : {"cpu", "cuda"}
        The device that the engine runs on. The machine that builds it need not have one.
    streamable_weights : bool
        Whether the engine allows weight streaming.
    refittable : bool
        Whether the engine's weights can be changed, under their names in the module's state dict. Weights on
        whose values shapes depend cannot be changed.
    name : str
        The engine's name.

    Returns
    -------
    bytes
        The plan, for :meth:`Runtime.deserialize_cuda_engine`. It contains no code.

    Raises
    ------
    CompileError
        The network cannot be exported, calls an operator that plans may not call, or does not fit the
        profiles or names. The message names the layer and, where export kept it, the source line.
    """
    # torch.export takes a second to import, and loading a plan does not need it.
    from trt_rt.reference.plan_builder import PlanBuilder

    builder = PlanBuilder(
        module_or_exported_program,
        arg_inputs,
        kwarg_inputs,
        dynamic_shapes,
        input_names=input_names,
        output_names=output_names,
        shape_inputs=shape_inputs,
        aliases=aliases or {},
        device=device,
        refittable=refittable,
    )
    return builder.build(profiles, streamable_weights=streamable_weights, name=name)
