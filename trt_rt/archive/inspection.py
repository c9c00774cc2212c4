"""The contents of a program's file, read without running or loading anything from it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from torch._export.serde import schema

from trt_rt.archive.container import Container
from trt_rt.archive.engine_nodes import EngineOfFile, engines_of
from trt_rt.archive.manifest import SIGNATURE, Manifest
from trt_rt.archive.opening import open_archive
from trt_rt.archive.payload import CONSTANTS, read_config
from trt_rt.archive.program_checks import EXECUTE_ENGINE
from trt_rt.archive.program_record import MODEL, read_program
from trt_rt.archive.signature import PublicKey
from trt_rt.archive.torch_tensorrt import take_engines

__all__ = ["ArchiveContents", "inspect_archive", "verify_archive"]


@dataclass(frozen=True)
class ArchiveContents:
    """The contents of a program's file.

    Attributes
    ----------
    size : int
        Of the file, in bytes.
    manifest : Manifest or None
        None for a file that ``torch.export.save`` wrote.
    is_signed : bool
        Whether there is a signature; it is not checked.
    engines : tuple of EngineOfFile
        In the order of the program.
    operators : dict of str to int
        How often the program calls each operator of PyTorch.
    records : dict of str to int
        Bytes of each record.
    """

    size: int
    manifest: Manifest | None
    is_signed: bool
    engines: tuple[EngineOfFile, ...]
    operators: dict[str, int]
    records: dict[str, int]


def inspect_archive(path: str | os.PathLike[str]) -> ArchiveContents:
    """Return what a file holds. Hashes are not compared.

    Raises
    ------
    ArchiveError
        The file is not an archive, or its manifest or its program is not as `trt_rt.load` reads it.
    OSError
        The file cannot be read.
    """
    container = Container(path)
    manifest = open_archive(container, verify=False, public_key=None)
    program = read_program(container)
    take_engines(program, container, read_config(container, CONSTANTS))
    called: Counter[str] = Counter(
        node.target.removeprefix("torch.ops.")
        for node in program.graph_module.graph.nodes
        if node.target != EXECUTE_ENGINE
    )
    return ArchiveContents(
        size=container.size,
        manifest=manifest,
        is_signed=SIGNATURE in container,
        engines=tuple(engines_of(program, f"{container.path}, record {MODEL!r}")),
        operators=dict(called),
        records={name: record.size for name, record in container.records.items()},
    )


def verify_archive(path: str | os.PathLike[str], public_key: PublicKey | None) -> schema.SchemaVersion:
    """Compare a file's records with their hashes, and check its signature and its program.

    Parameters
    ----------
    path : path-like
        The file.
    public_key : PublicKey, optional
        Whose signature it must have.

    Returns
    -------
    SchemaVersion
        Of the program.

    Raises
    ------
    ArchiveError
        Something does not fit, or the file is not signed as asked.
    OSError
        The file or the key cannot be read.
    """
    container = Container(path)
    open_archive(container, verify=True, public_key=public_key)
    return read_program(container).schema_version
