"""The contents of a program's file, read without running or loading anything from it."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass

from trt_rt.archive.container import Container
from trt_rt.archive.engine_nodes import EngineOfFile, engines_of
from trt_rt.archive.engine_pickle import PickledEngine
from trt_rt.archive.manifest import SIGNATURE, Manifest
from trt_rt.archive.opening import open_archive
from trt_rt.archive.payload import CONSTANTS, read_config
from trt_rt.archive.program_checks import EXECUTE_ENGINE
from trt_rt.archive.program_record import MODEL, read_program
from trt_rt.archive.signature import PublicKey
from trt_rt.archive.torch_tensorrt import take_engines
from trt_rt.archive.torchscript_loading import read_engines
from trt_rt.archive.torchscript_objects import is_torchscript
from trt_rt.archive.torchscript_source import ScriptSource

__all__ = ["ArchiveContents", "ScriptContents", "inspect_archive", "verify_archive"]

_CALL = re.compile(r"\b(?:torch|ops\.[a-z_]+)\.[A-Za-z_0-9]+(?=\()")


@dataclass(frozen=True)
class ArchiveContents:
    """The contents of a program's file.

    Attributes
    ----------
    size : int
        Of the file, in bytes.
    manifest : Manifest or None
        None for a file that ``torch.export.save`` or Torch-TensorRT wrote.
    is_of_torch_tensorrt : bool
        Whether its engines are objects of Torch-TensorRT.
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
    is_of_torch_tensorrt: bool
    is_signed: bool
    engines: tuple[EngineOfFile, ...]
    operators: dict[str, int]
    records: dict[str, int]


@dataclass(frozen=True)
class ScriptContents:
    """The contents of a TorchScript file of Torch-TensorRT.

    Attributes
    ----------
    size : int
        Of the file, in bytes.
    engines : tuple of PickledEngine
        Their tensors' names are in the file; shapes and dtypes are in the plans.
    operators : dict of str to int
        How often the code names each operator.
    records : dict of str to int
        Bytes of each record, as they are stored.
    """

    size: int
    engines: tuple[PickledEngine, ...]
    operators: dict[str, int]
    records: dict[str, int]


def inspect_archive(path: str | os.PathLike[str]) -> ArchiveContents | ScriptContents:
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
    if is_torchscript(container):
        return _script_contents(container)
    program = read_program(container)
    taken = take_engines(program, container, read_config(container, CONSTANTS))
    called: Counter[str] = Counter(
        node.target.removeprefix("torch.ops.")
        for node in program.graph_module.graph.nodes
        if node.target != EXECUTE_ENGINE
    )
    return ArchiveContents(
        size=container.size,
        manifest=manifest,
        is_of_torch_tensorrt=bool(taken),
        is_signed=SIGNATURE in container,
        engines=tuple(engines_of(program, f"{container.path}, record {MODEL!r}")),
        operators=dict(called),
        records={name: record.size for name, record in container.records.items()},
    )


def _script_contents(container: Container) -> ScriptContents:
    engines = tuple(read_engines(container))
    called = Counter(name for text in ScriptSource(container).texts() for name in _CALL.findall(text))
    return ScriptContents(
        size=container.size,
        engines=engines,
        operators=dict(sorted(called.items())),
        records={name: record.size for name, record in container.records.items()},
    )


def verify_archive(path: str | os.PathLike[str], public_key: PublicKey | None) -> None:
    """Compare a file's records with their hashes, and check its signature and its program.

    Parameters
    ----------
    path : path-like
        The file.
    public_key : PublicKey, optional
        Whose signature it must have.

    Raises
    ------
    ArchiveError
        Something does not fit, or the file is not signed as asked.
    OSError
        The file or the key cannot be read.
    """
    container = Container(path)
    open_archive(container, verify=True, public_key=public_key)
    if is_torchscript(container):
        _script_contents(container)  # its source code is compressed, and its checksums are compared here
    else:
        read_program(container)
