"""From a file to an exported program that can be compiled, without running code of the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch._export.serde.serialize import ExportedProgramDeserializer
from torch.export import ExportedProgram
from torch.utils._pytree import tree_unflatten

from trt_rt.archive.container import Container
from trt_rt.archive.engine_nodes import engines_of
from trt_rt.archive.graph_reading import refused_by_pytorch
from trt_rt.archive.opening import open_archive
from trt_rt.archive.payload import CONSTANTS, WEIGHTS, Payload, read_config
from trt_rt.archive.program_checks import ProgramChecks
from trt_rt.archive.program_record import MODEL, read_program
from trt_rt.errors import ArchiveError

__all__ = ["load_exported"]


def load_exported(path: str | os.PathLike[str], *, operators: Iterable[str] = ()) -> ExportedProgram:
    """Load what ``torch.export.save`` wrote, with the checks of `trt_rt.load`.

    Example inputs are pickles in such a file, and are not read. The program gets others: tensors of ones, of
    the sizes that it was exported with.

    Parameters
    ----------
    path : path-like
        The file.
    operators : iterable of str
        Operators outside of PyTorch that it may call, such as ``"torchvision::nms"``.

    Raises
    ------
    ArchiveError
        The file is damaged, is a compiled program, or has what files may not have.
    OSError
        The file cannot be read.
    """
    container = Container(path)
    open_archive(container, verify=True, public_key=None)
    where = f"{container.path}, record {MODEL!r}"
    program = read_program(container)
    checks = ProgramChecks(where, tuple(operators))
    checks.check(program)
    if engines_of(program, where):
        raise ArchiveError(f"{container.path} is a compiled program: trt_rt.load runs it.")
    kinds = [Payload(container, kind, read_config(container, kind)) for kind in (WEIGHTS, CONSTANTS)]
    for payload in kinds:
        for name in payload.config:
            checks.check_path(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with refused_by_pytorch(where):
        state, constants = (payload.read(device, ()) for payload in kinds)
        exported = ExportedProgramDeserializer().deserialize(program, state, constants, None)
        exported.example_inputs = _example_inputs(exported)
    return exported


def _example_inputs(exported: ExportedProgram) -> Any:
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    leaves = [
        _example(values[spec.arg.name]) if spec.arg.name in values else None
        for spec in exported.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT"
    ]
    in_spec = exported.call_spec.in_spec
    assert in_spec is not None
    return tree_unflatten(leaves, in_spec)


def _example(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    sizes = [size.node.hint if isinstance(size, torch.SymInt) else size for size in value.shape]
    return torch.ones(sizes, dtype=value.dtype, device=value.device)
