"""``trt_rt.load``: from a file to a program."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch._export.serde import schema
from torch.utils._pytree import treespec_loads

from trt_rt.archive.container import Container
from trt_rt.archive.devices import choose_device
from trt_rt.archive.engine_nodes import EngineOfFile, engines_of, used_as_tensors
from trt_rt.archive.graph_reading import graph_module, refused_by_pytorch
from trt_rt.archive.guarded_functions import GuardedFunctions
from trt_rt.archive.manifest import MANIFEST, Manifest
from trt_rt.archive.opening import check_platform, open_archive
from trt_rt.archive.parameters import read_parameters, signature_of_names
from trt_rt.archive.partitions import partition_of_engines, read_partition
from trt_rt.archive.payload import CONSTANTS, WEIGHTS, Payload, read_config
from trt_rt.archive.program_checks import ProgramChecks
from trt_rt.archive.program_record import MODEL, read_program
from trt_rt.archive.signature import PublicKey
from trt_rt.archive.torch_tensorrt import take_engines
from trt_rt.archive.torchscript_loading import load_torchscript
from trt_rt.archive.torchscript_objects import is_torchscript
from trt_rt.backend import Backend
from trt_rt.compiled import Partition, Program
from trt_rt.compiled.call_writer import write_call
from trt_rt.compiled.calling_convention import CallingConvention
from trt_rt.errors import ArchiveError, BackendError, PlanError
from trt_rt.module import TRTModule

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | int | None = None,
    backend: str | Backend = "auto",
    eager: bool = True,
    verify: bool = True,
    public_key: PublicKey | None = None,
    operators: Iterable[str] = (),
) -> Program:
    """Load a program that `trt_rt.save`, ``torch.export.save`` or Torch-TensorRT wrote.

    The file is mapped into memory, and engines take their plans from there. No code of the file runs: nothing
    is unpickled, and no text is evaluated.

    Parameters
    ----------
    path : path-like
        The file. It must not be changed while it is loaded; replacing it by another file is safe.
    device : torch.device, str or int, optional
        The device to run on, of the type that the program was saved for. Default: the current CUDA device, or
        the CPU.
    backend : str or Backend, optional
        As for `Engine.from_bytes`. Default: the one that fits the plans.
    eager : bool
        Whether engines are loaded now. Otherwise each is loaded at its first call. Those of a TorchScript
        file are always loaded now, because the file does not tell the shapes of their tensors.
    verify : bool
        Whether to compare every record with its SHA-256. It takes about 0.6 s for 1 GB. Without it a damaged
        plan may reach TensorRT, which does not always survive it.
    public_key : PublicKey, optional
        Refuse a file that is not signed with this key: an ``Ed25519PublicKey`` of the package cryptography,
        its PEM, the secret for HMAC, or the path of a file with one of these. Needs ``verify=True``.
    operators : iterable of str
        Operators outside of PyTorch that the file may call, such as ``"torchvision::nms"``. They must be
        registered already.

    Returns
    -------
    Program
        As `trt_rt.compile` returned it.

    Raises
    ------
    ArchiveError
        The file is damaged, of a newer version, for another device or platform, not signed as asked, or has
        what files may not have.
    PlanError, BackendError
        A backend refuses a plan, or is missing.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> trt_rt.save(torch.export.export(torch.nn.Linear(4, 8), (torch.zeros(2, 4),)), "model.pt2")
    >>> program = trt_rt.load("model.pt2")
    >>> program(torch.zeros(2, 4)).shape
    torch.Size([2, 8])
    """
    if public_key is not None and not verify:
        raise ArchiveError("a signature covers the SHA-256 of every record: public_key= needs verify=True.")
    container = Container(path)
    manifest = open_archive(container, verify=verify, public_key=public_key)
    if is_torchscript(container):
        return load_torchscript(container, device, backend)
    if manifest is not None:
        check_platform(manifest, container.path)
    return _Loader(container, manifest, backend, eager=eager).load(device, tuple(operators))


@dataclass(frozen=True)
class _Weights:
    """The tensors of a program."""

    weights: Payload
    constants: Payload

    def record(self, path: str) -> str:
        return self._owner(path).record(path)

    def has(self, path: str) -> bool:
        return path in self.weights.config or path in self.constants.config

    def _owner(self, path: str) -> Payload:
        return self.weights if path in self.weights.config else self.constants


class _Loader:
    """The steps from a checked container to a program."""

    def __init__(
        self, container: Container, manifest: Manifest | None, backend: str | Backend, *, eager: bool
    ) -> None:
        self._container = container
        self._manifest = manifest
        self._backend = backend
        self._eager = eager
        self._plans: dict[str, bytes] = {}
        self._where = f"{container.path}, record {MODEL!r}"

    def load(self, device: Any, operators: Collection[str]) -> Program:
        program = read_program(self._container)
        constants = read_config(self._container, CONSTANTS)
        taken = take_engines(program, self._container, constants)
        self._plans = {path: engine.plan for path, engine in taken.items()}
        chosen = self._device(device, program)
        checks = ProgramChecks(self._where, operators, device=chosen)
        checks.check(program)
        weights = _Weights(
            Payload(self._container, WEIGHTS, read_config(self._container, WEIGHTS)),
            Payload(self._container, CONSTANTS, constants),
        )
        for path in (*weights.weights.config, *weights.constants.config):
            checks.check_path(path)
        engines = engines_of(program, self._where)
        self._check_engines(engines, weights)
        modules = {engine.name: self._module(engine, weights, chosen) for engine in engines}
        return self._program(program, weights, engines, modules, chosen)

    def _device(self, wanted: Any, program: schema.ExportedProgram) -> torch.device:
        tensors = program.graph_module.graph.tensor_values.values()
        saved_for = "cuda" if any(tensor.device.type == "cuda" for tensor in tensors) else "cpu"
        chosen = choose_device(self._container.path, wanted, saved_for)
        if chosen.type != saved_for:
            raise ArchiveError(
                f"{self._container.path} was saved for device={saved_for!r} and cannot run on {chosen}: "
                "compile "
                "the model there and save that, or leave device= out."
            )
        return chosen

    def _check_engines(self, engines: list[EngineOfFile], weights: _Weights) -> None:
        """Check that each plan is there, and that it is the one that the program describes."""
        for engine in engines:
            if engine.plan in self._plans:
                continue
            if not weights.has(engine.plan):
                raise ArchiveError(f"{self._where}: the plan {engine.plan!r} is missing among the weights.")
            if self._manifest is None:
                continue
            record = weights.record(engine.plan)
            if self._manifest.records[record][1] != engine.meta.sha256:
                raise ArchiveError(
                    f"{self._container.path}, record {record!r}: it is not the plan that the program "
                    "describes."
                )

    def _module(self, engine: EngineOfFile, weights: _Weights, device: torch.device) -> TRTModule:
        meta = engine.meta
        plan: bytes | memoryview | None = self._plans.get(engine.plan)
        record = engine.plan if plan is not None else weights.record(engine.plan)
        if plan is None:
            plan = self._container.view(record)
        # With a manifest the hash was compared already.
        sha256 = meta.sha256 if self._manifest is None else None
        try:
            module = TRTModule(
                plan,
                [tensor.name for tensor in meta.inputs],
                [tensor.name for tensor in meta.outputs],
                name=engine.name,
                settings=None if self._eager else SimpleNamespace(lazy_engine_init=True),
                backend=self._backend,
                device=device,
                aliased_io=meta.aliased_io,
                sha256=sha256,
            )
        except (PlanError, BackendError) as error:
            raise type(error)(
                f"{self._container.path}, record {record!r}: {error}{self._origin()}"
            ) from error
        return module

    def _origin(self) -> str:
        """Where the file was made, for the error of a backend that refuses a plan."""
        if self._manifest is None:
            return ""
        found = self._manifest
        places = [found.platform]
        if found.compute_capability:
            places.append(f"{found.gpu or 'a GPU'} of compute capability {found.compute_capability}")
        if found.tensorrt_version:
            places.append(f"{found.backend} {found.tensorrt_version}")
        return f" The file was made on {', '.join(places)}."

    def _program(
        self,
        program: schema.ExportedProgram,
        weights: _Weights,
        engines: list[EngineOfFile],
        modules: dict[str, TRTModule],
        device: torch.device,
    ) -> Program:
        needed = used_as_tensors(program)
        plans = {engine.plan for engine in engines if engine.argument not in needed}
        root = program.graph_module.module_call_graph[0].signature
        assert root is not None
        in_spec, out_spec = treespec_loads(root.in_spec), treespec_loads(root.out_spec)
        state, constants = weights.weights.read(device, plans), weights.constants.read(device, plans)
        constants.update({path: torch.empty(0, dtype=torch.uint8) for path in self._plans})
        with refused_by_pytorch(self._where):
            graph = graph_module(program, state, constants, engines)
            examples = [node.meta.get("val") for node in graph.module.graph.nodes if node.op == "placeholder"]
            signature = self._signature(root, len(in_spec.children()[0].children()))
            convention = CallingConvention(in_spec, out_spec, signature, examples)
            call = write_call(convention, graph.module.graph, graph.ranges, GuardedFunctions())
        return Program(call, modules, graph.module, self._partition(engines))

    def _signature(self, root: schema.ModuleCallSignature, positional: int) -> inspect.Signature | None:
        if self._manifest is not None and self._manifest.parameters is not None:
            return read_parameters(self._manifest.parameters, f"{self._container.path}, record {MANIFEST!r}")
        if not root.forward_arg_names:
            return None
        return signature_of_names(root.forward_arg_names, positional, self._where)

    def _partition(self, engines: list[EngineOfFile]) -> Partition:
        manifest = self._manifest
        if manifest is not None and manifest.partition:
            return read_partition(
                manifest.backend, manifest.partition, f"{self._container.path}, record {MANIFEST!r}"
            )
        return partition_of_engines(engines)
