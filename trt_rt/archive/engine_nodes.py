"""The engines of an exported program: calls of ``trt_rt::execute_engine`` and the plans that they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch._export.serde import schema

from trt_rt.archive.program_checks import EXECUTE_ENGINE
from trt_rt.errors import ArchiveError, PlanError
from trt_rt.operator import EngineMeta

__all__ = ["EngineOfFile", "engines_of", "used_as_tensors"]


@dataclass(frozen=True)
class EngineOfFile:
    """An engine that a program calls.

    Attributes
    ----------
    name : str
        Of the program's submodule that runs it.
    plan : str
        The name of the plan among the program's weights.
    argument : str
        The name of the plan in the graph.
    meta : EngineMeta
        Its tensors.
    """

    name: str
    plan: str
    argument: str
    meta: EngineMeta


def engines_of(program: schema.ExportedProgram, where: str) -> list[EngineOfFile]:
    """Return the engines of a program, in the order of their first calls.

    Engines that only a branch of ``torch.cond`` calls are not among them: PyTorch's operator runs these.

    Parameters
    ----------
    program : ExportedProgram
        After `ProgramChecks`.
    where : str
        For messages.

    Raises
    ------
    ArchiveError
        A plan is not among the weights, or is described twice in different ways.
    """
    weights = {
        spec.value.arg.name: spec.value.buffer_name
        if spec.type == "buffer"
        else spec.value.tensor_constant_name
        for spec in program.graph_module.signature.input_specs
        if spec.type in ("buffer", "tensor_constant")
    }
    found: dict[str, EngineOfFile] = {}
    for node in program.graph_module.graph.nodes:
        if node.target != EXECUTE_ENGINE:
            continue
        arguments = {given.name: given.arg for given in node.inputs}
        plan, text = arguments.get("plan"), arguments.get("meta")
        if plan is None or text is None or plan.type != "as_tensor" or text.type != "as_string":
            raise ArchiveError(
                f"{where}: an engine is called with other arguments than a plan and its description."
            )
        path = weights.get(plan.as_tensor.name)
        if path is None:
            raise ArchiveError(
                f"{where}: the plan {plan.as_tensor.name!r} is not among the program's weights."
            )
        try:
            meta = EngineMeta.parse(text.as_string)
        except PlanError as error:
            raise ArchiveError(f"{where}: {error}") from error
        known = found.setdefault(path, EngineOfFile(f"engine_{len(found)}", path, plan.as_tensor.name, meta))
        if known.meta != meta:
            raise ArchiveError(f"{where}: the plan {path!r} is described in two ways.")
    return list(found.values())


def used_as_tensors(program: schema.ExportedProgram) -> set[str]:
    """Return the names of values that something else than the plan of an engine needs."""
    graph = program.graph_module.graph
    used: set[str] = set()
    for node in graph.nodes:
        for given in node.inputs:
            if node.target != EXECUTE_ENGINE or given.name != "plan":
                used.update(_names(given.arg.value))
    for output in graph.outputs:
        used.update(_names(output.value))
    return used


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _names(item)
    elif isinstance(value, schema.TensorArgument):
        yield value.name
    elif isinstance(value, schema.OptionalTensorArgument):
        yield from _names(value.value)
