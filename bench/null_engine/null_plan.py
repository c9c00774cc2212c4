"""The null engine's plan: a magic word and the table of I/O tensors as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

MAGIC = b"NULL"


@dataclass(frozen=True)
class TensorSpec:
    """One I/O tensor of a null engine.

    Attributes
    ----------
    name : str
        Unique in the engine.
    shape : tuple of int
        Dimensions in elements; -1 is one that the caller sets.
    shape_of : str
        Name of the input whose present shape this tensor has; an input's own name for an input.
    is_input : bool
        Direction.
    """

    name: str
    shape: tuple[int, ...]
    shape_of: str
    is_input: bool


def plan(
    *,
    inputs: int = 1,
    outputs: int = 1,
    shape: tuple[int, ...] = (1, 16),
    launches_kernel: bool = False,
    busy_us: float = 0,
) -> bytes:
    """Make the plan of an engine of float32 tensors ``in0``, ``in1``, ... and ``out0``, ``out1``, ...

    Parameters
    ----------
    inputs, outputs : int
        How many; at least one input. Output *i* has the shape of input *i* modulo `inputs`.
    shape : tuple of int
        Shape of every tensor; -1 for a dynamic dimension, from 1 to 1024 and best at 1.
    launches_kernel : bool
        Whether an enqueue launches one empty CUDA kernel on the caller's stream, or does nothing.
    busy_us : float
        How long an enqueue keeps its thread busy without the GIL, in microseconds, as TensorRT's does.
    """
    if inputs < 1:
        raise ValueError("a null engine needs an input: its outputs take their shapes from it")
    specs = [TensorSpec(f"in{i}", shape, f"in{i}", is_input=True) for i in range(inputs)]
    specs += [TensorSpec(f"out{i}", shape, f"in{i % inputs}", is_input=False) for i in range(outputs)]
    header = {
        "tensors": [asdict(spec) for spec in specs],
        "launches_kernel": launches_kernel,
        "busy_us": busy_us,
    }
    return MAGIC + json.dumps(header).encode()


def read_plan(serialized: bytes) -> tuple[list[TensorSpec], bool, float]:
    """The tensors, whether an enqueue launches a kernel, and its `busy_us`; ValueError for any other plan."""
    if not serialized.startswith(MAGIC):
        raise ValueError(f"a null engine's plan starts with {MAGIC!r}, this one with {serialized[:4]!r}")
    header = json.loads(serialized[len(MAGIC) :])
    specs = [TensorSpec(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in header["tensors"]]
    return specs, header["launches_kernel"], header["busy_us"]
