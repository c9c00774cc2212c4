"""The program that is served: a perceptron of a chosen weight, or a file, and a bare loop of its calls."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import torch

import trt_rt
from trt_rt.integrations.batching import run_batches
from trt_rt.integrations.inference_protocol import WireTensor
from trt_rt.integrations.interface import ProgramInterface

_FEATURES, _SCORES = 256, 64
_WARM_UP = 5


class Perceptron(torch.nn.Module):
    """One layer again and again: `width` and `layers` set the time of a batch, and the file stays small."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.first = torch.nn.Linear(_FEATURES, width)
        self.hidden = torch.nn.Linear(width, width)
        self.last = torch.nn.Linear(width, _SCORES)
        self.shortcut = torch.nn.Linear(_FEATURES, _SCORES)  # without it, all inputs have nearly one output

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        values = torch.tanh(self.first(features))
        for _ in range(self.layers):
            values = torch.tanh(self.hidden(values))
        return {"scores": self.last(values) + self.shortcut(features)}


def write_program(file: Path, *, width: int, layers: int, most_rows: int, device: torch.device) -> None:
    """Compile a perceptron with the reference backend, and save it."""
    torch.manual_seed(0)
    model = Perceptron(width, layers).eval().to(device)
    features = trt_rt.Input(
        min_shape=(1, _FEATURES), opt_shape=(most_rows, _FEATURES), max_shape=(most_rows, _FEATURES)
    )
    trt_rt.save(trt_rt.compile(model, inputs=[features], backend="reference"), file)


def write_samples(
    program_file: Path, samples_file: Path, *, rows: int, count: int, device: torch.device
) -> None:
    """Write inputs of requests, and the outputs that the program itself has for them."""
    program = trt_rt.load(program_file, device=device)
    interface = ProgramInterface.of(program.exported())
    generator = torch.Generator().manual_seed(1)
    arrays: dict[str, Any] = {}
    datatypes: dict[str, str] = {}
    for number in range(count):
        inputs = {}
        for each in interface.inputs:
            shape = [rows if index == 0 else limits.min for index, limits in enumerate(each.shape) if limits]
            if each.dtype.is_floating_point:
                inputs[each.name] = torch.randn(shape, generator=generator).to(each.dtype)
            else:
                inputs[each.name] = torch.randint(0, 2, shape, generator=generator).to(each.dtype)
        with torch.inference_mode():
            [outputs] = run_batches(
                program, interface, [{name: tensor.to(device) for name, tensor in inputs.items()}]
            )
        if isinstance(outputs, Exception):
            raise outputs
        for kind, tensors in (("input", inputs), ("output", outputs)):
            for name, tensor in tensors.items():
                arrays[f"{kind} {number} {name}"] = tensor.cpu().numpy()
                datatypes[f"{kind} {name}"] = WireTensor.of(tensor[:0].cpu()).datatype
    numpy.savez(samples_file, datatypes=json.dumps(datatypes), **arrays)


def bare_loop(
    program_file: Path, device: torch.device, rows: float, seconds: float, core: int | None
) -> float:
    """Return the calls a second of the program in a process of its own, with batches of `rows` rows.

    A mean that is no whole number is made of batches of the two sizes next to it.
    """
    command = [sys.executable, __file__, str(program_file), str(device), str(rows), str(seconds), str(core)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout)


def _loop(program_file: str, device: torch.device, rows: float, seconds: float) -> float:
    torch.set_num_threads(1)
    program = trt_rt.load(program_file, device=device)
    interface = ProgramInterface.of(program.exported())
    small = int(rows)
    batches = [_batch(interface, size, device) for size in {small, small + (rows > small)}]
    share = rows - small

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        for _ in range(_WARM_UP):
            for batch in batches:
                interface.call(program, batch)
        wait()
        calls, large = 0, 0
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            is_large = large < share * calls
            interface.call(program, batches[-1] if is_large else batches[0])
            large += is_large
            calls += 1
            if calls % 8 == 0:
                wait()
        wait()
        return calls / (time.perf_counter() - began)


def _batch(interface: ProgramInterface, rows: int, device: torch.device) -> dict[str, torch.Tensor]:
    batch = {}
    for each in interface.inputs:
        sizes = [limits.min for limits in each.shape[1:] if limits]
        values = torch.randn(rows, *sizes) if each.dtype.is_floating_point else torch.ones(rows, *sizes)
        batch[each.name] = values.to(device, each.dtype)
    return batch


if __name__ == "__main__":
    import os

    arguments = sys.argv[1:]
    if arguments[4] != "None":
        os.sched_setaffinity(0, {int(arguments[4])})
    print(_loop(arguments[0], torch.device(arguments[1]), float(arguments[2]), float(arguments[3])))
