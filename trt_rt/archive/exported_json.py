"""An exported program as JSON, without code, metadata and weights."""

from __future__ import annotations

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import (
    GraphModuleSerializer,
    _to_json_bytes,
    serialize_range_constraints,
)
from torch.export import ExportedProgram

from trt_rt.errors import ArchiveError

__all__ = ["exported_to_json"]


def exported_to_json(program: ExportedProgram) -> bytes:
    """Return the record of a program.

    PyTorch's own function pickles weights and example inputs besides, in memory.

    Raises
    ------
    ArchiveError
        PyTorch cannot describe the program, or it holds objects of classes.
    """
    try:
        serializer = GraphModuleSerializer(program.graph_signature, program.module_call_graph)
        module = serializer.serialize(program.graph_module)
        if serializer.custom_objs:
            name = next(iter(serializer.custom_objs))
            raise ArchiveError(f"the program has the object {name!r}, and only tensors can be saved.")
        _forget_metadata(module.graph)
        module.module_call_graph = [entry for entry in module.module_call_graph if entry.fqn == ""]
        module.metadata = {}
        major, minor = schema.SCHEMA_VERSION
        return _to_json_bytes(
            schema.ExportedProgram(
                graph_module=module,
                opset_version={"aten": torch._C._get_max_operator_version()},
                range_constraints=serialize_range_constraints(program.range_constraints),
                schema_version=schema.SchemaVersion(major=major, minor=minor),
                verifiers=[verifier.dialect for verifier in program.verifiers],
                torch_version=torch.__version__,
            )
        )
    except ArchiveError:
        raise
    except Exception as error:  # PyTorch's serializer raises whatever it meets
        raise ArchiveError(f"PyTorch cannot describe the program in a file: {error}.") from error


def _forget_metadata(graph: schema.Graph) -> None:
    """Take out stack traces and names of modules, which tell paths of the author's machine."""
    for node in graph.nodes:
        node.metadata = {}
        for given in node.inputs:
            if given.arg.type == "as_graph":
                _forget_metadata(given.arg.value.graph)
