"""From the description of a program, once it is checked, to its graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer
from torch.fx import GraphModule

from trt_rt.archive.engine_calls import call_modules
from trt_rt.archive.engine_nodes import EngineOfFile
from trt_rt.errors import ArchiveError

__all__ = ["ReadGraph", "graph_module", "refused_by_pytorch"]


@dataclass(frozen=True)
class ReadGraph:
    """A program's graph.

    Attributes
    ----------
    module : torch.fx.GraphModule
        The graph, in which engines are calls of submodules that it does not have. It has the weights.
    ranges : mapping
        Of symbol in the graph to the range of sizes for which it is right.
    """

    module: GraphModule
    ranges: Mapping[Any, Any]


def graph_module(
    program: schema.ExportedProgram,
    state: Mapping[str, torch.Tensor],
    constants: Mapping[str, torch.Tensor],
    engines: Iterable[EngineOfFile],
) -> ReadGraph:
    """Return the graph of a program; for use in :func:`refused_by_pytorch`.

    Parameters
    ----------
    program : ExportedProgram
        After `ProgramChecks`: PyTorch's deserializer believes it.
    state, constants : mapping
        The weights by their names. They are shared.
    engines : iterable of EngineOfFile
        Those that the graph calls as submodules.
    """
    exported = ExportedProgramDeserializer().deserialize(program, dict(state), dict(constants), None)
    module = exported.module(check_guards=False)
    assert isinstance(module, GraphModule)
    call_modules(module.graph, engines)
    return ReadGraph(module, exported.range_constraints)


@contextmanager
def refused_by_pytorch(where: str) -> Iterator[None]:
    """Turn what is raised while a graph is read and written as code into an ArchiveError.

    Parameters
    ----------
    where : str
        For messages.
    """
    try:
        yield
    except ArchiveError:
        raise
    except Exception as error:  # PyTorch's deserializer raises whatever it meets in a graph
        raise ArchiveError(
            f"{where}: PyTorch {torch.__version__} cannot read the program: {_first_line(error)}."
        ) from error


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
