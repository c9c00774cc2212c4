"""``trt_rt.integrations.triton.export_triton``: a saved program as a model of the Triton Inference Server."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from trt_rt.archive import load
from trt_rt.compiled import Program
from trt_rt.errors import TRTError
from trt_rt.integrations.interface import ProgramInterface, TensorInterface, without_plan
from trt_rt.integrations.triton.model_config import InstanceGroup, ModelConfig, ModelTensor
from trt_rt.module import TRTModule
from trt_rt.operator import OPERATOR, EngineMeta

__all__ = ["ModelFolder", "export_triton"]

_TENSORRT = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch")
"""Backends whose plans Triton's TensorRT backend runs."""

_PYTHON_MODEL = '''"""A program of trt_rt. The server's Python needs trt_rt and the backend of its engines."""

from trt_rt.integrations.triton.python_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class ModelFolder:
    """What `export_triton` wrote.

    Attributes
    ----------
    folder : Path
        The model's folder in the repository.
    config : ModelConfig
        What its config.pbtxt says.
    files : tuple of str
        The files in the folder.
    """

    folder: Path
    config: ModelConfig
    files: tuple[str, ...]


def export_triton(
    path: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    *,
    name: str | None = None,
    version: int = 1,
    instances: int = 1,
    batching: bool = True,
    max_queue_delay_us: int = 100,
    layout: str = "auto",
) -> ModelFolder:
    """Write a saved program into a model repository of the Triton Inference Server.

    A program that is one TensorRT engine becomes ``model.plan``, which Triton's TensorRT backend runs without
    Python. Every other program becomes a copy of the file and a ``model.py`` for Triton's Python backend.

    Parameters
    ----------
    path : path-like
        What `trt_rt.save` wrote. The program is loaded, so this needs the device that it is for.
    repository : path-like
        The repository's folder, which is made if it does not exist. A version of the model that is there is
        replaced, when the new one is complete.
    name : str, optional
        The model's name: letters, digits and ``-_.``. Default: the file's name without its suffix.
    version : int
        The model's version, at least 1.
    instances : int
        How many copies of the model the server runs on each GPU, or on the CPU.
    batching : bool
        Whether the server may join requests along the first dimension. Turn it off for a model whose results
        for one row depend on the other rows.
    max_queue_delay_us : int
        How long a request may wait for others, in microseconds.
    layout : {"auto", "tensorrt", "python"}
        Which of Triton's backends to write for.

    Returns
    -------
    ModelFolder
        What was written.

    Raises
    ------
    TRTError
        The program has arguments or results that are no tensors, or has no engine for ``layout="tensorrt"``.
    ArchiveError, PlanError, BackendError
        As `trt_rt.load`.
    OSError
        A file cannot be read or written.

    Examples
    --------
    >>> from trt_rt.integrations.triton import export_triton
    >>> program = trt_rt.compile(torch.nn.Linear(4, 8), inputs=[torch.zeros(2, 4)], backend="reference")
    >>> trt_rt.save(program, "classifier.pt2")
    >>> export_triton("classifier.pt2", "repository").files
    ('1/model.pt2', '1/model.py', 'config.pbtxt')
    """
    source = Path(path)
    if layout not in ("auto", "tensorrt", "python"):
        raise TRTError(f"layout={layout!r} is not known: use 'auto', 'tensorrt' or 'python'.")
    name = name if name is not None else source.stem
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise TRTError(f"{name!r} cannot be a model's name: use letters, digits, '-', '_' and '.'.")
    if version < 1 or instances < 1:
        raise TRTError("the version and the number of instances must be at least 1.")
    program = load(source)
    exported = program.exported(keep_plan=without_plan)
    engine = _only_engine(program, exported)
    if layout == "tensorrt" and engine is None:
        raise TRTError(
            f"{source} is not one TensorRT engine from its first argument to its last result, so Triton's "
            "TensorRT backend cannot run it: use layout='python'."
        )
    delay = max_queue_delay_us
    if engine is not None and layout != "python":
        config = _config_of_engine(name, program, engine, instances, batching=batching, delay=delay)
    else:
        engine = None
        config = _config_of_program(name, program, exported, instances, batching=batching, delay=delay)
    target = Path(repository) / name
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".version-", dir=target) as temporary:
        new = Path(temporary) / str(version)
        new.mkdir()
        if engine is not None:
            (new / "model.plan").write_bytes(_module(program).engine.serialize())
        else:
            shutil.copyfile(source, new / "model.pt2")
            (new / "model.py").write_text(_PYTHON_MODEL)
        (Path(temporary) / "config.pbtxt").write_text(config.dumps())
        if (target / str(version)).exists():
            (target / str(version)).rename(Path(temporary) / "old")
        new.rename(target / str(version))
        (Path(temporary) / "config.pbtxt").replace(target / "config.pbtxt")
    files = sorted(f"{version}/{file.name}" for file in (target / str(version)).iterdir())
    return ModelFolder(target, config, (*files, "config.pbtxt"))


def _module(program: Program) -> TRTModule:
    [module] = program.engines.values()
    return module


def _only_engine(program: Program, exported: ExportedProgram) -> EngineMeta | None:
    """Return the engine that a program is, if it is one that Triton's TensorRT backend can run alone."""
    calls = [node for node in exported.graph.nodes if node.target == OPERATOR]
    if len(calls) != 1:
        return None
    inputs, _, text = calls[0].args
    meta = EngineMeta.parse(text)
    names = [node.name for node in inputs]
    [result] = exported.graph.find_nodes(op="output")
    results = list(result.args[0])
    whole = (
        meta.backend in _TENSORRT
        and not meta.aliased_io
        and sorted(names) == sorted(exported.graph_signature.user_inputs)
        and all(isinstance(value, Node) and value.args[:1] == (calls[0],) for value in results)
        and len(set(results)) == len(meta.outputs) == len(results)
    )
    return meta if whole else None


def _config_of_engine(
    name: str, program: Program, meta: EngineMeta, instances: int, *, batching: bool, delay: int
) -> ModelConfig:
    """Return the configuration for Triton's TensorRT backend, with the engine's own names."""
    engine = _module(program).engine
    tensors = [*engine.inputs, *engine.outputs]
    device = [tensor for tensor in tensors if not tensor.is_shape_tensor]
    # Triton asks that the first dimension of every tensor of a model with batches is -1.
    has_batch = batching and len(device) == len(tensors) and all(each.shape[:1] == (-1,) for each in tensors)
    profiles = tuple(range(engine.num_optimization_profiles))
    ranges = [limits for tensor in engine.inputs for limits in tensor.profiles]
    if has_batch and (not ranges or any(limits.min[0] != 1 for limits in ranges)):
        has_batch = False  # Triton may send a batch of any size from 1 on
    largest = max(limits.max[0] for limits in ranges) if has_batch else 0
    preferred = tuple(sorted({limits.opt[0] for limits in ranges if limits.opt[0] > 1})) if has_batch else ()

    def described(tensor: object) -> ModelTensor:
        shape = tensor.shape[1:] if has_batch else tensor.shape  # type: ignore[attr-defined]
        return ModelTensor(tensor.name, tensor.dtype, shape, tensor.is_shape_tensor)  # type: ignore[attr-defined]

    return ModelConfig(
        name,
        "tensorrt",
        largest,
        tuple(map(described, engine.inputs)),
        tuple(map(described, engine.outputs)),
        InstanceGroup("cuda", instances, profiles if len(profiles) > 1 else ()),
        preferred,
        delay,
    )


def _config_of_program(
    name: str, program: Program, exported: ExportedProgram, instances: int, *, batching: bool, delay: int
) -> ModelConfig:
    """Return the configuration for Triton's Python backend, with the names of arguments and results."""
    interface = ProgramInterface.of(exported)
    batch = interface.batch if batching else None
    largest = batch.max if batch is not None and batch.max is not None else 0

    def described(tensor: TensorInterface) -> ModelTensor:
        sizes = tensor.sizes[1:] if largest else tensor.sizes
        return ModelTensor(tensor.name, tensor.dtype, sizes)

    return ModelConfig(
        name,
        "python",
        largest,
        tuple(map(described, interface.inputs)),
        tuple(map(described, interface.outputs)),
        InstanceGroup(_device(program).type, instances),
        (),
        delay,
    )


def _device(program: Program) -> torch.device:
    devices = [module.engine.device for module in program.engines.values()]
    devices += [tensor.device for tensor in (*program.parameters(), *program.buffers())]
    return next(iter(devices), torch.device("cpu"))
