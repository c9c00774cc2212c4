"""Programs from Torch-TensorRT's form to ours and back.

Both are PT2 archives, which differ in how the graph names an engine and in where its plan is. So the graph's
JSON is rewritten and all other records are copied; no engine is loaded, and no GPU is needed. A TorchScript
file has no such JSON: it is loaded and saved.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import EnumEncoder, _dataclass_to_dict
from torch.export import ExportedProgram

from trt_rt.archive.container import Container
from trt_rt.archive.container_writer import ContainerWriter
from trt_rt.archive.engine_fields import VERSIONS, EngineFields
from trt_rt.archive.engine_nodes import EngineOfFile, engines_of, used_as_tensors
from trt_rt.archive.loading import load
from trt_rt.archive.manifest import MANIFEST, EngineEntry, Manifest
from trt_rt.archive.opening import open_archive
from trt_rt.archive.payload import CONSTANTS, WEIGHTS, Payload, PayloadKind, read_config
from trt_rt.archive.program_checks import EXECUTE_ENGINE
from trt_rt.archive.program_record import MODEL, read_program
from trt_rt.archive.saving import SAMPLE_INPUTS, engines_of_model, save, write_head
from trt_rt.archive.torch_tensorrt import CALL, plan_meta, take_engines
from trt_rt.archive.torchscript_objects import is_torchscript
from trt_rt.backend import identify_plan
from trt_rt.backend.atomic_file import check_writable, open_atomically
from trt_rt.compiled import Program
from trt_rt.errors import ArchiveError
from trt_rt.module import TRTModule

__all__ = ["Conversion", "convert", "export_torch_tensorrt"]

_PLATFORMS = {"Linux aarch64": "linux_aarch64", "Linux x86_64": "linux_x86_64"}
"""Names of platforms: ours, and Torch-TensorRT's."""

_BACKENDS = ("tensorrt", "tensorrt_rtx")
_ENGINE_CLASS = "__torch__.torch.classes.tensorrt.Engine"
_PLAN_RECORD, _ENGINE_RECORD = "tensor_", "custom_obj_"
_HEAD = 64


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes
    ----------
    form : str
        Of the new file: "trt_rt" or "Torch-TensorRT".
    version : str
        Of the Torch-TensorRT that it is for; "" for a file of trt_rt.
    engines : int
        How many.
    """

    form: str
    version: str
    engines: int


def export_torch_tensorrt(
    program: Program | TRTModule | ExportedProgram,
    path: str | os.PathLike[str],
    *,
    version: str | None = None,
) -> None:
    """Save a program in a file that Torch-TensorRT loads.

    Parameters
    ----------
    program : Program, TRTModule or torch.export.ExportedProgram
        With engines of TensorRT. Sizes and results are those of the program.
    path : path-like
        The file, by custom ``*.ep`` or ``*.pt2``. It is replaced once all of the new one is on the disk.
    version : str, optional
        Of the Torch-TensorRT that will load it: "2.11", "2.12", "2.13" or "2.14". Each reads files of its own
        format only. Default: the version that belongs to this PyTorch.

    Raises
    ------
    ArchiveError
        The program has no engines, engines of another backend, or something that Torch-TensorRT has no form
        for: engines that write into their inputs, shape tensors, or plans that are used as tensors.
    OSError
        The file cannot be written. The old file is unchanged.

    Notes
    -----
    The file has engines of Torch-TensorRT's C++ runtime. ``torch_tensorrt.load`` and, after
    ``import torch_tensorrt``, ``torch.export.load`` read it. Beside the file as much space is needed once
    more while it is written.
    """
    check_writable(path)
    with tempfile.TemporaryDirectory(dir=Path(path).resolve().parent, prefix=".trt_rt-") as folder:
        saved = Path(folder) / "program.pt2"
        save(program, saved)
        container = Container(saved)
        manifest = open_archive(container, verify=False, public_key=None)
        assert manifest is not None
        _Export(container, manifest, _version(version), os.fspath(path)).write()


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, version: str | None = None
) -> Conversion:
    """Convert a file of Torch-TensorRT to one of ours, or one of ours to one of Torch-TensorRT.

    Parameters
    ----------
    source : path-like
        What `trt_rt.save` or Torch-TensorRT wrote.
    target : path-like
        The new file, in the other form.
    version : str, optional
        As for `export_torch_tensorrt`.

    Raises
    ------
    ArchiveError
        The file is neither of these, is damaged, or has what the other form cannot express.
    PlanError, BackendError
        The engines of a TorchScript file cannot be loaded here, and only they tell the shapes.
    OSError
        A file cannot be read or written.
    """
    check_writable(target)
    container = Container(source)
    manifest = open_archive(container, verify=True, public_key=None)
    if manifest is not None:
        wanted = _version(version)
        engines = _Export(container, manifest, wanted, os.fspath(target)).write()
        return Conversion("Torch-TensorRT", wanted, engines)
    if version is not None:
        raise ArchiveError(
            f"{container.path} is a file of Torch-TensorRT or PyTorch, and becomes one of trt_rt: a version "
            "of Torch-TensorRT is for the other direction."
        )
    if is_torchscript(container):
        program = load(source)
        save(program, target)
        return Conversion("trt_rt", "", len(program.partition.engines))
    return Conversion("trt_rt", "", _import(container, os.fspath(target)))


def _version(wanted: str | None) -> str:
    found = ".".join(torch.__version__.split(".")[:2]) if wanted is None else wanted
    if wanted is None and found not in VERSIONS:
        found = max(VERSIONS)
    if found not in VERSIONS:
        raise ArchiveError(
            f"there is no form for Torch-TensorRT {found!r}: its versions are {', '.join(VERSIONS)}."
        )
    return found


def _import(container: Container, target: str) -> int:
    """Write a file of ours from one of Torch-TensorRT, and return how many engines it has."""
    program = read_program(container)
    constants = read_config(container, CONSTANTS)
    taken = take_engines(program, container, constants)
    if not taken:
        raise ArchiveError(
            f"{container.path} has no engines of Torch-TensorRT, and was not written by trt_rt.save: there "
            "is nothing to convert. trt_rt.load reads it as it is."
        )
    model = _model_of(program)
    engines = engines_of_model(model, target, ())
    weights = read_config(container, WEIGHTS)
    payloads = [Payload(container, WEIGHTS, weights), Payload(container, CONSTANTS, constants)]
    free = _free_records(payloads[1], _PLAN_RECORD)
    records = {path: next(free) for path in taken}
    for path, engine in taken.items():
        constants[path] = schema.PayloadMeta(
            path_name=records[path], is_param=False, use_pickle=False, tensor_meta=plan_meta(len(engine.plan))
        )
    first = next(iter(taken.values()))
    platforms = {theirs: ours for ours, theirs in _PLATFORMS.items()}
    tensors = program.graph_module.graph.tensor_values.values()
    with open_atomically(target) as file, ContainerWriter(file) as writer:
        write_head(writer)
        _copy_payload(container, writer, payloads, without=taken)
        for path, engine in taken.items():
            writer.write_bytes(f"{CONSTANTS.folder}{records[path]}", engine.plan)
        _write_configs(writer, weights, constants)
        writer.write_bytes(MODEL, model)
        writer.write_bytes(SAMPLE_INPUTS, b"")
        manifest = Manifest(
            made_with={"torch": program.torch_version},
            backend=engines[0].meta.backend,
            tensorrt_version=identify_plan(first.plan[:_HEAD]).version_text,
            compute_capability=first.compute_capability,
            gpu=first.gpu,
            platform=platforms.get(first.platform, first.platform),
            device="cuda" if any(tensor.device.type == "cuda" for tensor in tensors) else "cpu",
            engines=tuple(
                EngineEntry(engine.name, f"{CONSTANTS.folder}{records[engine.plan]}") for engine in engines
            ),
            records=dict(writer.digests),
        )
        writer.write_bytes(MANIFEST, manifest.to_json())
    return len(engines)


class _Export:
    """Writes a file of Torch-TensorRT from one of ours."""

    def __init__(self, container: Container, manifest: Manifest, version: str, target: str) -> None:
        self._container = container
        self._manifest = manifest
        self._target = target
        self._where = f"{container.path}, record {MODEL!r}"
        self._program = read_program(container)
        self._engines = engines_of(self._program, self._where)
        self._check()
        self._fields = EngineFields(
            version, manifest.compute_capability, manifest.gpu, _PLATFORMS[manifest.platform], target
        )

    def _check(self) -> None:
        if not self._engines:
            raise ArchiveError(
                f"{self._target}: the program has no engines. torch.export.save writes it for every reader."
            )
        needed = used_as_tensors(self._program)
        for engine in self._engines:
            if engine.meta.backend not in _BACKENDS:
                raise ArchiveError(
                    f"{self._target}: {engine.name} runs on the backend {engine.meta.backend!r}, and "
                    "Torch-TensorRT runs engines of TensorRT only. Compile the model with backend='tensorrt'."
                )
            if engine.argument in needed:
                raise ArchiveError(
                    f"{self._target}: the plan of {engine.name} is also used as a tensor, for example in a "
                    "branch of torch.cond. Torch-TensorRT has no form for that."
                )
        if self._manifest.platform not in _PLATFORMS:
            raise ArchiveError(
                f"{self._target}: Torch-TensorRT has no name for the platform {self._manifest.platform!r}."
            )
        if not self._manifest.compute_capability:
            raise ArchiveError(
                f"{self._target}: the file does not tell for which GPU its engines were built. Save the "
                "program again on the machine with the GPU."
            )

    def write(self) -> int:
        container = self._container
        weights, constants = read_config(container, WEIGHTS), read_config(container, CONSTANTS)
        payloads = [Payload(container, WEIGHTS, weights), Payload(container, CONSTANTS, constants)]
        plans = {engine.plan: payloads[engine.plan in constants] for engine in self._engines}
        places = {path: payload.record(path) for path, payload in plans.items()}
        for engine in self._engines:
            self._fields.check(engine.name, len(container.view(places[engine.plan])), engine.meta)
            self._rewrite(engine)
        with open_atomically(self._target) as file, ContainerWriter(file) as writer:
            write_head(writer)
            _copy_payload(container, writer, payloads, without=plans)
            free = _free_records(payloads[1], _ENGINE_RECORD)
            for engine in self._engines:
                name = next(free)
                plan = container.view(places[engine.plan])
                record = self._fields.record(engine.name, plan, engine.meta)
                writer.write_bytes(f"{CONSTANTS.folder}{name}", record)
                weights.pop(engine.plan, None)
                constants[engine.plan] = schema.PayloadMeta(
                    path_name=name, is_param=False, use_pickle=True, tensor_meta=None
                )
            _write_configs(writer, weights, constants)
            writer.write_bytes(MODEL, _model_of(self._program))
            writer.write_bytes(SAMPLE_INPUTS, b"")
        return len(self._engines)

    def _rewrite(self, engine: EngineOfFile) -> None:
        """Make the plan an object, and call Torch-TensorRT's operator with it."""
        module = self._program.graph_module
        graph, name = module.graph, engine.argument
        found = schema.CustomObjArgument(name=name, class_fqn=_ENGINE_CLASS)
        argument = schema.Argument.create(as_custom_obj=found)
        graph.custom_obj_values[name] = found
        graph.tensor_values.pop(name, None)
        graph.inputs = [
            argument if given.type == "as_tensor" and given.value.name == name else given
            for given in graph.inputs
        ]
        specs = module.signature.input_specs
        for number, spec in enumerate(specs):
            if spec.type in ("buffer", "tensor_constant") and spec.value.arg.name == name:
                specs[number] = schema.InputSpec.create(
                    custom_obj=schema.InputToCustomObjSpec(arg=found, custom_obj_name=engine.plan)
                )
        for node in graph.nodes:
            arguments = {given.name: given.arg for given in node.inputs}
            if node.target == EXECUTE_ENGINE and arguments["plan"].value.name == name:
                node.target = CALL
                node.inputs = [
                    schema.NamedArgument(name=key, arg=value, kind=schema.ArgumentKind.POSITIONAL)
                    for key, value in {"input_tensors": arguments["inputs"], "engine": argument}.items()
                ]


def _model_of(program: schema.ExportedProgram) -> bytes:
    """The record of a program, without stack traces and guards."""
    program.guards_code = []
    module = program.graph_module
    module.metadata = {}
    module.module_call_graph = [entry for entry in module.module_call_graph if entry.fqn == ""]
    for node in module.graph.nodes:
        node.metadata = {}
    return json.dumps(_dataclass_to_dict(program), cls=EnumEncoder, allow_nan=False).encode()


def _copy_payload(
    container: Container, writer: ContainerWriter, payloads: list[Payload], without: Mapping[str, Any]
) -> None:
    """Copy the records of tensors as they are, but for some."""
    for payload in payloads:
        records = {payload.record(path) for path in payload.config if path not in without}
        for record in sorted(records):
            content = container.view(record)
            writer.write(record, len(content), [content])


def _write_configs(
    writer: ContainerWriter,
    weights: dict[str, schema.PayloadMeta],
    constants: dict[str, schema.PayloadMeta],
) -> None:
    """Write the descriptions of tensors."""
    described: list[tuple[PayloadKind, dict[str, schema.PayloadMeta]]] = [
        (WEIGHTS, weights),
        (CONSTANTS, constants),
    ]
    for kind, config in described:
        value = _dataclass_to_dict(schema.PayloadConfig(config=config))
        writer.write_bytes(kind.config, json.dumps(value, cls=EnumEncoder).encode())


def _free_records(payload: Payload, prefix: str) -> Iterator[str]:
    """Names for new records."""
    taken = {meta.path_name for meta in payload.config.values()}
    number = 0
    while True:
        if f"{prefix}{number}" not in taken:
            yield f"{prefix}{number}"
        number += 1
