"""The record that describes a program's graph."""

from __future__ import annotations

from torch._export.serde import schema

from trt_rt.archive.container import Container
from trt_rt.archive.schema_reader import read_schema
from trt_rt.archive.strict_json import parse

__all__ = ["MODEL", "read_program"]

MODEL = "models/model.json"
_LARGEST = 256 << 20


def read_program(container: Container) -> schema.ExportedProgram:
    """Return the program as PyTorch describes it, with types checked and names not.

    Raises
    ------
    ArchiveError
        The record is missing, or is not a program.
    """
    where = f"{container.path}, record {MODEL!r}"
    return read_schema(schema.ExportedProgram, parse(container.text(MODEL, _LARGEST), where), where)
