"""Times and memory of compilations for docs/compile.md.

``python -m tests.program.measure`` prints all tables. With ``prepare [NETWORK...]`` it prints only the
first one, for all networks or some.

Times are CPU time, so that other users of the machine count less.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any
from unittest import mock

import torch

import trt_rt
from tests.compiler.networks import NETWORKS
from trt_rt.backend import load
from trt_rt.compiler import BuildOptions, export_program
from trt_rt.program import part_builder, pipeline
from trt_rt.program.settings import CompileSettings
from trt_rt.program.stages import DividedProgram, build_program, divide_program, model_graph
from trt_rt.program.support import Exclusions

SPLITS = {"ResNet": "aten.relu", "MobileNetV2": "aten.hardtanh", "BERT": "aten.gelu"}
EXAMPLE_BATCH = 3
RUNS = 3
WEIGHT_BYTES = 4 << 22


def settings(*operators: str) -> CompileSettings:
    return CompileSettings(
        backend=load("tensorrt_rtx"),
        device=torch.device("cpu"),
        exclusions=Exclusions(operators=frozenset(operators)),
        options=BuildOptions(),
        min_block_size=1,
        require_full_compilation=False,
        truncate_double=False,
    )


@contextmanager
def timed(*places: tuple[Any, str]) -> Iterator[dict[str, float]]:
    """Add up the CPU seconds spent in functions, by their names."""
    seconds: dict[str, float] = defaultdict(float)

    def timing(name: str, function: Any) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            started = process_time()
            try:
                return function(*args, **keywords)
            finally:
                seconds[name] += process_time() - started

        return call

    with ExitStack() as patches:
        for owner, name in places:
            patches.enter_context(mock.patch.object(owner, name, timing(name, getattr(owner, name))))
        yield seconds


def exported(name: str) -> torch.export.ExportedProgram:
    network = NETWORKS[name]
    inputs = network.inputs(EXAMPLE_BATCH)
    return export_program(network.make(), (), inputs, dynamic_shapes=network.dynamic_shapes)


@dataclass(frozen=True)
class Preparation:
    """A network that is ready to be built, and how long that took: all of it, and the parser's answers.

    `export` is how long its export took before.
    """

    export: float
    seconds: float
    asking: float
    divided: DividedProgram


def once() -> None:
    """Make what is made once for a process, such as torch.onnx's tables, with another export of a network."""
    divide_program(model_graph(exported("ResNet")), settings())


def prepare(name: str, *left: str) -> Preparation:
    """Prepare a network's parts, with the operators `left` in PyTorch.

    The network is exported anew, so that nothing is known of it. Python's garbage collector runs before: a
    full pass takes as long as all the rest, and only chance decides whether one comes meanwhile.
    """
    gc.collect()
    started = process_time()
    program = exported(name)
    export = process_time() - started
    graph = model_graph(program)
    gc.collect()
    with timed((part_builder, "refused_by_parser")) as asked:
        started = process_time()
        divided = divide_program(graph, settings(*left))
        seconds = process_time() - started
    return Preparation(export, seconds, asked["refused_by_parser"], divided)


def preparation(names: Sequence[str] = ()) -> None:
    print(
        "| network | engines | prepare, per engine (s) | of it: ask the parser (ms) | build, per engine (s) |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    once()
    cases = [(name, "") for name in names or NETWORKS] + [case for case in SPLITS.items() if not names]
    for name, operator in cases:
        left = [operator] if operator else []
        runs = [prepare(name, *left) for _ in range(RUNS)]
        divided = runs[-1].divided
        count = len(divided.divided.parts)
        started = process_time()
        build_program(divided, settings(*left))
        built = process_time() - started
        what = f"{name}, {operator} in PyTorch" if operator else name
        seconds = statistics.median(run.seconds for run in runs)
        ask = statistics.median(run.asking for run in runs) * 1000
        print(f"| {what} | {count} | {seconds / count:.2f} | {ask:.0f} | {built / count:.2f} |", flush=True)


def hits() -> None:
    print("\n| network | export (s) | the rest of a hit (s) | the first time (s) |")
    print("| --- | ---: | ---: | ---: |")
    for name, network in NETWORKS.items():
        model, inputs = network.make(), network.inputs(EXAMPLE_BATCH)
        with tempfile.TemporaryDirectory() as folder:
            keywords = {
                "kwarg_inputs": inputs,
                "dynamic_shapes": network.dynamic_shapes,
                "backend": "reference",
                "cache_dir": folder,
            }
            started = process_time()
            trt_rt.compile(model, **keywords)
            first = process_time() - started
            with timed((pipeline, "export_model")) as seconds:
                started = process_time()
                trt_rt.compile(model, **keywords)
                total = process_time() - started
        export = seconds["export_model"]
        print(f"| {name} | {export:.2f} | {total - export:.2f} | {first:.2f} |", flush=True)


class Chain(torch.nn.Module):
    """Layers of equal size, with an operator between them that no engine runs."""

    def __init__(self, count: int) -> None:
        super().__init__()
        width = int((WEIGHT_BYTES // 4) ** 0.5)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.fft.fft(torch.relu(layer(x))).real
        return x


def memory_status(name: str) -> int:
    """A figure of Linux about this process: VmRSS is what it has in memory, VmHWM the most that it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def memory_of(count: int) -> None:
    """Print the peak of a compilation beyond the model and the plans; in a process of its own."""
    wanted = settings()
    warm = export_program(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()), (torch.ones(2, 4),))
    build_program(divide_program(model_graph(warm), wanted), wanted)
    width = int((WEIGHT_BYTES // 4) ** 0.5)
    graph = model_graph(export_program(Chain(count), (torch.ones(2, width),)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory_status("VmRSS")
    built = build_program(divide_program(graph, wanted), wanted)
    plans = sum(len(part.plan) for part in built.parts)
    beyond = memory_status("VmHWM") - before - plans
    print(f"| {len(built.parts)} | {beyond >> 20} | {plans >> 20} |", flush=True)


def memory() -> None:
    print(f"\n| engines, each with {WEIGHT_BYTES >> 20} MiB of weights | peak beyond (MiB) | plans (MiB) |")
    print("| ---: | ---: | ---: |", flush=True)
    for count in (1, 4, 16, 32):
        subprocess.run([sys.executable, "-m", "tests.program.measure", "memory", str(count)], check=True)


if __name__ == "__main__":
    what, *which = sys.argv[1:] or ["all"]
    if what == "prepare":
        preparation(which)
    elif what == "memory":
        memory_of(int(which[0]))
    else:
        preparation()
        hits()
        memory()
