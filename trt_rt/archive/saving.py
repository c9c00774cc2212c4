"""``trt_rt.save``: from a program to a file."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch._export.serde import schema
from torch.export import ExportedProgram
from torch.export.pt2_archive import constants as pt2

from trt_rt.archive.container_writer import ContainerWriter
from trt_rt.archive.engine_nodes import EngineOfFile, engines_of
from trt_rt.archive.exported_json import exported_to_json
from trt_rt.archive.manifest import MANIFEST, SIGNATURE, EngineEntry, Manifest
from trt_rt.archive.module_export import exported_module
from trt_rt.archive.nesting import refuse_nesting
from trt_rt.archive.parameters import parameters_to_json
from trt_rt.archive.partitions import partition_to_json
from trt_rt.archive.payload import CONSTANTS, WEIGHTS, write_payload
from trt_rt.archive.plan_records import PLAN_HEAD, PlanRecords
from trt_rt.archive.program_checks import ProgramChecks
from trt_rt.archive.program_record import MODEL
from trt_rt.archive.schema_reader import read_schema
from trt_rt.archive.signature import SigningKey, signer
from trt_rt.archive.strict_json import parse
from trt_rt.backend import identify_plan
from trt_rt.backend.atomic_file import check_writable, open_atomically
from trt_rt.compiled import Program
from trt_rt.errors import ArchiveError
from trt_rt.module import TRTModule
from trt_rt.reference.example_tensors import mixed_up_inputs

__all__ = ["SAMPLE_INPUTS", "engines_of_model", "save", "write_head"]

SAMPLE_INPUTS = "data/sample_inputs/model.pt"


def save(
    program: Program | TRTModule | ExportedProgram,
    path: str | os.PathLike[str],
    *,
    signing_key: SigningKey | None = None,
    operators: Iterable[str] = (),
) -> None:
    """Save a program in a file that `trt_rt.load` and ``torch.export.load`` read.

    Parameters
    ----------
    program : Program, TRTModule or torch.export.ExportedProgram
        What `trt_rt.compile` and `trt_rt.load` return; a module over one engine, which is loaded as a program
        of that engine; or an exported program, with engines or without.
    path : path-like
        The file, by custom ``*.pt2``. It is replaced once all of the new one is on the disk.
    signing_key : SigningKey, optional
        Signs the file: an ``Ed25519PrivateKey`` of the package cryptography, its PEM, a secret of at least 16
        bytes for HMAC, or the path of a file with one of these.
    operators : iterable of str
        Operators outside of PyTorch that the program calls, such as ``"torchvision::nms"``. `trt_rt.load`
        needs the same names.

    Raises
    ------
    ArchiveError
        The program has what files may not have, or the key is of another kind.
    OSError
        The file cannot be written, for example because the disk is full. The old file is unchanged.

    Notes
    -----
    Plans and weights are written a few megabytes at a time. Each engine of a `Program` is asked for its plan
    when it is written, so memory is needed for one plan, where the backend makes it. Nothing is pickled.
    Stack traces and example inputs are left out.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> program = trt_rt.compile(model, inputs=[torch.zeros(2, 4)], backend="reference")
    >>> trt_rt.save(program, "model.pt2")
    >>> trt_rt.load("model.pt2")(torch.zeros(2, 4)).shape
    torch.Size([2, 8])
    """
    check_writable(path)
    sign = None if signing_key is None else signer(signing_key)
    operators = tuple(operators)
    with open_atomically(path) as file, ContainerWriter(file) as writer:
        write_head(writer)
        plans = PlanRecords(writer)
        exported = _exported(program, plans)
        model = exported_to_json(exported)
        engines = engines_of_model(model, os.fspath(path), operators)
        records = write_payload(writer, WEIGHTS, dict(exported.state_dict), plans.records)
        records.update(write_payload(writer, CONSTANTS, _constants(exported)))
        writer.write_bytes(MODEL, model)
        writer.write_bytes(SAMPLE_INPUTS, b"")
        heads = {engine.plan: plans.heads.get(engine.plan) or _head(exported, engine) for engine in engines}
        manifest = _manifest(program, exported, engines, records, heads, writer.digests).to_json()
        writer.write_bytes(MANIFEST, manifest)
        if sign is not None:
            writer.write_bytes(SIGNATURE, sign(manifest))


def _exported(program: Any, plans: PlanRecords) -> ExportedProgram:
    """Return what is written; the plans of a `Program` are written already."""
    if isinstance(program, TRTModule):
        return exported_module(program)
    if isinstance(program, Program):
        refuse_nesting(program.nesting)
        return program.exported(keep_plan=plans.keep)
    if isinstance(program, ExportedProgram):
        refuse_nesting((program.call_spec.in_spec, program.call_spec.out_spec))
        if mixed_up := mixed_up_inputs(program):
            raise ArchiveError(mixed_up)
        return program
    raise ArchiveError(
        f"a {type(program).__name__} cannot be saved: give a Program, a TRTModule or an ExportedProgram."
    )


def _constants(exported: ExportedProgram) -> dict[str, torch.Tensor]:
    for name, value in exported.constants.items():
        if not isinstance(value, torch.Tensor):
            raise ArchiveError(
                f"the constant {name!r} is a {type(value).__name__}, and only tensors can be saved."
            )
    return dict(exported.constants)


def write_head(writer: ContainerWriter) -> None:
    """Write the records by which PyTorch knows an archive."""
    writer.write_bytes(pt2.ARCHIVE_FORMAT_PATH, pt2.ARCHIVE_FORMAT_VALUE.encode())
    writer.write_bytes(pt2.ARCHIVE_VERSION_PATH, pt2.ARCHIVE_VERSION_VALUE.encode())
    writer.write_bytes(".data/version", b"6\n")
    writer.write_bytes("byteorder", b"little")


def engines_of_model(model: bytes, path: str, operators: Collection[str]) -> list[EngineOfFile]:
    """Read the program as `trt_rt.load` will, so that what it refuses is not saved."""
    where = f"the program cannot be saved in {path}"
    described = read_schema(schema.ExportedProgram, parse(model, where), where)
    ProgramChecks(where, operators).check(described)
    return engines_of(described, where)


def _manifest(
    program: Any,
    exported: ExportedProgram,
    engines: list[EngineOfFile],
    records: dict[str, str],
    heads: dict[str, bytes],
    digests: dict[str, tuple[int, str]],
) -> Manifest:
    for engine in engines:
        if digests[records[engine.plan]][1] != engine.meta.sha256:
            raise ArchiveError(
                f"the plan {engine.plan!r} is not the one that the program describes: it was changed after "
                "the program was exported."
            )
    versions = [identify_plan(heads[engine.plan]).version_text for engine in engines]
    device = next((tensor.device for tensor in _values(exported) if tensor.is_cuda), torch.device("cpu"))
    capability = gpu = ""
    if device.type == "cuda" and torch.cuda.is_available():
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
        gpu = torch.cuda.get_device_name(device)
    return Manifest(
        made_with={"torch": torch.__version__},
        backend=engines[0].meta.backend if engines else "",
        tensorrt_version=versions[0] if versions else "",
        compute_capability=capability,
        gpu=gpu,
        platform=f"{platform.system()} {platform.machine()}",
        device=device.type,
        engines=tuple(EngineEntry(engine.name, records[engine.plan]) for engine in engines),
        parameters=parameters_to_json(program.signature) if isinstance(program, Program) else None,
        partition=partition_to_json(program.partition) if isinstance(program, Program) else [],
        records=dict(digests),
    )


def _head(exported: ExportedProgram, engine: EngineOfFile) -> bytes:
    plan = {**exported.constants, **exported.state_dict}[engine.plan]
    return bytes(plan[:PLAN_HEAD].tolist())


def _values(exported: ExportedProgram) -> Iterable[torch.Tensor]:
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            yield value
