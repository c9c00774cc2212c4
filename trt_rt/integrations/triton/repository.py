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

_LARGEST_NUMBER = 2**31 - 1
"""Of a field int32 in a model's configuration."""
_LARGEST_DELAY_US = 2**64 // 1000 - 1
"""Of a field uint64 in microseconds, which the server holds as nanoseconds in 64 bits."""

# Before it starts instances, the server imports the file in a process of its own, to ask the class about the
# configuration. That process need not import PyTorch.
_PYTHON_MODEL = '''"""A program of trt_rt. The server's Python needs trt_rt and the backend of its engines."""


def TritonPythonModel():
    """Return an instance of the model."""
    from trt_rt.integrations.triton.python_model import TritonPythonModel

    return TritonPythonModel()
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
    max_batch_size: int | None = None,
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
    max_batch_size : int, optional
        The most rows of a request, and of the requests that the server joins. Default: the most that the
        program takes. A program without such a limit has batches only with `max_batch_size`. In the Python
        layout it may be more than the program takes: the rows are then run in several calls.
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
        The program has arguments or results that are no tensors, is not one engine that ``layout="tensorrt"``
        can have, or has no batches of `max_batch_size`.
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
    if max_batch_size is not None and not batching:
        raise TRTError("max_batch_size cannot be given without batching.")
    for what, number, smallest, largest in (
        ("version", version, 1, _LARGEST_NUMBER),
        ("instances", instances, 1, _LARGEST_NUMBER),
        ("max_batch_size", max_batch_size, 1, _LARGEST_NUMBER),
        ("max_queue_delay_us", max_queue_delay_us, 0, _LARGEST_DELAY_US),
    ):
        if number is not None and not smallest <= number <= largest:
            raise TRTError(f"{what} is {number}; Triton takes {smallest} to {largest}.")
    program = load(source)
    exported = program.exported(keep_plan=without_plan)
    engine = _only_engine(program, exported)
    if layout == "tensorrt" and engine is None:
        raise TRTError(
            f"{source} is not one TensorRT engine from its first argument to its last result, of tensors "
            "with dimensions, so Triton's TensorRT backend cannot run it: use layout='python'."
        )
    if layout == "python":
        engine = None
    interface = ProgramInterface.of(exported)
    options = _Options(name, instances, batching, max_batch_size, max_queue_delay_us)
    if engine is not None:
        config = _config_of_engine(_module(program), interface, options)
    else:
        config = _config_of_program(interface, _device(program), options)
    if max_batch_size is not None and not config.max_batch_size:
        raise TRTError(
            f"{source} has no batch for max_batch_size={max_batch_size}: the first dimension of every input "
            "and output must vary, and be the same in all of them"
            + (". For Triton's TensorRT backend it must start at 1." if engine is not None else ".")
        )
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
        and all(tensor.shape for tensor in (*meta.inputs, *meta.outputs))
    )
    return meta if whole else None


@dataclass(frozen=True)
class _Options:
    """The arguments of `export_triton` that a configuration depends on."""

    name: str
    instances: int
    batching: bool
    max_batch_size: int | None
    max_queue_delay_us: int


def _config_of_engine(module: TRTModule, interface: ProgramInterface, options: _Options) -> ModelConfig:
    """Return the configuration for Triton's TensorRT backend, with the engine's own names."""
    engine = module.engine
    tensors = [*engine.inputs, *engine.outputs]
    profiles = tuple(range(engine.num_optimization_profiles))
    ranges = [[tensor.profiles[number] for tensor in engine.inputs] for number in profiles]
    # Triton asks that the first dimension of every tensor of a model with batches is -1, and may send a batch
    # of any size from 1 on.
    has_batch = (
        options.batching
        and interface.batch is not None
        and not any(tensor.is_shape_tensor for tensor in tensors)
        and all(tensor.shape[:1] == (-1,) for tensor in tensors)
        and all(limits.min[0] == 1 for profile in ranges for limits in profile)
    )
    largest = 0
    preferred: tuple[int, ...] = ()
    if has_batch:
        largest = max(min(limits.max[0] for limits in profile) for profile in ranges)
        largest = min(largest, options.max_batch_size or largest)
        best = {limits.opt[0] for profile in ranges for limits in profile}
        preferred = tuple(sorted(size for size in best if 1 < size <= largest))
    inputs, outputs = (
        tuple(
            ModelTensor(each.name, each.dtype, each.shape[has_batch:], each.is_shape_tensor)
            for each in described
        )
        for described in (engine.inputs, engine.outputs)
    )
    return ModelConfig(
        options.name,
        "tensorrt",
        largest,
        inputs,
        outputs,
        InstanceGroup("cuda", options.instances, profiles if len(profiles) > 1 else ()),
        preferred,
        options.max_queue_delay_us,
    )


def _config_of_program(interface: ProgramInterface, device: torch.device, options: _Options) -> ModelConfig:
    """Return the configuration for Triton's Python backend, with the names of arguments and results."""
    largest = 0
    if options.batching and interface.batch is not None:
        largest = options.max_batch_size or interface.batch.max or 0

    def described(tensor: TensorInterface) -> ModelTensor:
        sizes = tensor.sizes[1:] if largest else tensor.sizes
        return ModelTensor(tensor.name, tensor.dtype, sizes)

    return ModelConfig(
        options.name,
        "python",
        largest,
        tuple(map(described, interface.inputs)),
        tuple(map(described, interface.outputs)),
        InstanceGroup(device.type, options.instances),
        (),
        options.max_queue_delay_us,
    )


def _device(program: Program) -> torch.device:
    devices = [module.engine.device for module in program.engines.values()]
    devices += [tensor.device for tensor in (*program.parameters(), *program.buffers())]
    return next(iter(devices), torch.device("cpu"))
