"""Engines in files of Torch-TensorRT: pickles, of which only the strings are read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trt_rt.archive.container import Container, is_container
from trt_rt.archive.pickle_reader import PickledObject, PickleReader, restored
from trt_rt.errors import ArchiveError

__all__ = ["ENGINE", "RESTORE", "PickledEngine", "engine_of_state", "read_engine"]

ENGINE = "__torch__.torch.classes.tensorrt Engine"
"""The class of engines of Torch-TensorRT's C++ runtime, as pickles name it."""

RESTORE = "torch.jit._pickle restore_type_tag"
"""The function with which PyTorch pickles lists."""

_RECONSTRUCT = "torch_tensorrt.dynamo.runtime._TRTEngine _reconstruct_trt_engine"
"""The function with which Torch-TensorRT 2.13 and 2.14 pickle an engine for both of their runtimes."""

_DELIMITER = "%"
_ALIAS_DELIMITER = "@"
_NAME, _DEVICE, _PLAN, _INPUTS, _OUTPUTS, _PLATFORM, _ALIASES = 1, 2, 3, 4, 5, 8, 12
_FEWEST = 10
_DEVICE_FIELDS = 5
_MOST_OPCODES = 1000


@dataclass(frozen=True)
class PickledEngine:
    """An engine as Torch-TensorRT stores it.

    Attributes
    ----------
    name : str
        Of the engine.
    plan : bytes
        The plan.
    inputs, outputs : tuple of str
        Names of its tensors, in the order of a call.
    compute_capability : str
        Of the GPU that it was built for, such as "9.0"; "" if it is not told.
    gpu : str
        The name of that GPU, such as "NVIDIA H200"; "" if it is not told.
    platform : str
        In Torch-TensorRT's words, such as "linux_x86_64".
    aliased_io : dict
        From outputs to the inputs in whose memory the engine writes them.
    """

    name: str
    plan: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    compute_capability: str = ""
    gpu: str = ""
    platform: str = ""
    aliased_io: dict[str, str] = field(default_factory=dict)


def read_engine(record: memoryview, where: str) -> PickledEngine:
    """Return the engine of a record.

    Parameters
    ----------
    record : memoryview
        What PyTorch's serializer of C++ objects wrote, a ZIP file with a pickle; or the pickle of an engine
        of Torch-TensorRT's Python runtime.
    where : str
        For messages.

    Raises
    ------
    ArchiveError
        The record is anything else.
    """
    if is_container(record):
        content = bytes(Container(where, content=record).view("data.pkl"))
    else:
        content = bytes(record)
    functions: dict[str, Callable[..., Any]] = {RESTORE: restored, _RECONSTRUCT: _reconstructed}
    made = PickleReader(where, ENGINE.__eq__, functions, _MOST_OPCODES).read(content)
    if type(made) is not PickledObject:
        raise ArchiveError(f"{where}: its pickle is not that of an engine of Torch-TensorRT.")
    return engine_of_state(made.state, where)


def _reconstructed(fields: Any) -> PickledObject:
    engine = PickledObject(ENGINE)
    engine.state = fields
    return engine


def engine_of_state(fields: Any, where: str) -> PickledEngine:
    """Return the engine whose state a pickle has.

    Raises
    ------
    ArchiveError
        The state is not that of an engine.
    """
    if type(fields) is not list or not all(type(each) is str for each in fields):
        raise ArchiveError(f"{where}: its pickle is not that of an engine of Torch-TensorRT.")
    if len(fields) < _FEWEST:
        raise ArchiveError(
            f"{where}: its engine has {len(fields)} fields, and at least {_FEWEST} are needed."
        )
    try:
        plan = base64.b64decode(fields[_PLAN], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArchiveError(f"{where}: its plan is not base64: {error}.") from error
    device = fields[_DEVICE].split(_DELIMITER)
    is_told = len(device) == _DEVICE_FIELDS
    return PickledEngine(
        fields[_NAME],
        plan,
        _names(fields[_INPUTS]),
        _names(fields[_OUTPUTS]),
        ".".join(device[1:3]) if is_told else "",
        device[4] if is_told else "",
        fields[_PLATFORM],
        _aliases(fields[_ALIASES], where) if len(fields) > _ALIASES else {},
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(_DELIMITER)) if text else ()


def _aliases(text: str, where: str) -> dict[str, str]:
    """Read ``output@input@kind%output@input@kind``."""
    found = {}
    for record in _names(text):
        parts = record.split(_ALIAS_DELIMITER)
        if len(parts) < 2:
            raise ArchiveError(f"{where}: {record[:60]!r} is not an output in the memory of an input.")
        found[parts[0]] = parts[1]
    return found
