"""The result of a measurement, and its JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_rt.backend.atomic_file import write_atomically
from trt_rt.errors import SettingError
from trt_rt.report.samples import Times

__all__ = ["Case", "Concurrency", "MeasuredLayer", "Memory", "Result", "Step", "read_result", "write_result"]

FORMAT = 1
"""Of the JSON; rises with every change that readers must know."""


@dataclass(frozen=True)
class Case:
    """One mode, or one peer, with one set of shapes.

    Attributes
    ----------
    mode : str
        Of `trt_rt.report.MODES`, or a peer's name.
    shapes : str
        Label of the workload.
    is_peer : bool
        Whether others run the model here.
    warm_up_calls : int
        Calls until the times were steady.
    host : Times
        Until a call returned.
    done : Times
        Until its work was done; on a CPU as `host`.
    """

    mode: str
    shapes: str
    is_peer: bool
    warm_up_calls: int
    host: Times
    done: Times

    @property
    def name(self) -> str:
        """Mode and shapes."""
        return f"{self.mode}, {self.shapes}"


@dataclass(frozen=True)
class Concurrency:
    """Several threads that call one module, each on a stream of its own.

    Attributes
    ----------
    threads : int
        How many.
    shapes : str
        Label of the workload.
    calls_per_second : float
        Of all threads together.
    done : Times
        Until the work of single calls was done.
    """

    threads: int
    shapes: str
    calls_per_second: float
    done: Times


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer's time.

    Attributes
    ----------
    engine, name : str
        The engine and the layer.
    microseconds : float
        The mean over the profiled calls.
    """

    engine: str
    name: str
    microseconds: float


@dataclass(frozen=True)
class Memory:
    """Bytes that one mode takes.

    Attributes
    ----------
    engines : int
        The sizes of the plans: weights and kernels.
    workspace : int
        Scratch memory of one execution context of each engine.
    inputs, outputs : int
        The tensors of one call.
    """

    engines: int
    workspace: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Step:
    """A step of a program.

    Attributes
    ----------
    name : str
        The engine's name, or "PyTorch".
    what : str
        The operators.
    why : str
        For PyTorch: the reason.
    """

    name: str
    what: str
    why: str = ""


@dataclass(frozen=True)
class Result:
    """Everything that was measured.

    Attributes
    ----------
    target : str
        What was measured.
    engines : tuple of str
        Its engines: name and backend.
    machine : dict
        See `describe_machine`.
    versions : dict of str to str
        Of trt_rt, and of TensorRT.
    settings : dict
        What was asked for.
    cases : tuple of Case
        In the order in which they ran within a round.
    concurrency : tuple of Concurrency
        By rising number of threads.
    layers : tuple of MeasuredLayer
        Of a plain call; empty if the backend has no profiler.
    memory : Memory or None
        None if the backend does not tell.
    partition : tuple of Step
        Of a program; empty for an engine.
    skipped : dict of str to str
        Modes and peers that could not be measured, and why.
    notes : tuple of str
        What a reader must know before believing the numbers.
    interrupted : bool
        Whether the measurement was ended before its time.
    """

    target: str
    engines: tuple[str, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    cases: tuple[Case, ...]
    concurrency: tuple[Concurrency, ...] = ()
    layers: tuple[MeasuredLayer, ...] = ()
    memory: Memory | None = None
    partition: tuple[Step, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


def write_result(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON; the file is replaced only when all of it is written.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    write_atomically(Path(path), json.dumps(result.to_json(), indent=1).encode("utf-8"))


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read what `write_result` wrote.

    Raises
    ------
    OSError
        The file cannot be read.
    SettingError
        It is not such a file, or a newer trt_rt has written it.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        version = found.pop("format")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise SettingError(f"{path} is no JSON that `trt-rt bench --output` wrote.") from error
    if version != FORMAT:
        raise SettingError(
            f"{path} has format {version!r}, and this trt_rt reads format {FORMAT}. "
            "Measure again with one version."
        )
    try:
        return Result(
            **found
            | {
                "engines": tuple(found["engines"]),
                "cases": tuple(_with_times(Case, case, "host", "done") for case in found["cases"]),
                "concurrency": tuple(
                    _with_times(Concurrency, level, "done") for level in found["concurrency"]
                ),
                "layers": tuple(MeasuredLayer(**layer) for layer in found["layers"]),
                "memory": Memory(**found["memory"]) if found["memory"] else None,
                "partition": tuple(Step(**step) for step in found["partition"]),
                "notes": tuple(found["notes"]),
            }
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise SettingError(f"{path} is damaged: {error}.") from error


def _with_times(kind: type[Any], found: dict[str, Any], *names: str) -> Any:
    times = {
        name: Times(**found[name] | {"round_medians": tuple(found[name]["round_medians"])}) for name in names
    }
    return kind(**found | times)
