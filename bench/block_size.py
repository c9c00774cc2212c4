"""What a part of k operators costs in PyTorch, and as one engine: python bench/block_size.py [--plan FILE]

The figures behind the default of `min_block_size`. Without a plan the engine launches one empty kernel (on a
CPU: does nothing), so its time is what the call of any engine costs at least. The plan of pointwise operators
shows what TensorRT makes of them: one kernel. On a GPU each is measured called alone (host time), and as part
of a CUDA graph of a whole program (device time).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import null_engine
import torch

import trt_rt
from tests.factories.plan_folder import inputs_for

LONGEST = 8
CALLS = 200
SHAPE = (64, 256)

Call = Callable[[torch.Tensor], torch.Tensor]


def one_engine(plan: Path | None, rows: int, device: torch.device) -> tuple[trt_rt.TRTModule, torch.Tensor]:
    """The engine as a module, and an input for it."""
    if plan is None:
        backend = trt_rt.Backend("null", null_engine, runs_on_cpu=True)
        data = null_engine.plan(shape=SHAPE, launches_kernel=device.type == "cuda")
        return trt_rt.TRTModule(trt_rt.Engine.from_bytes(data, backend=backend, device=device)), torch.randn(
            SHAPE, device=device
        )
    module = trt_rt.TRTModule(plan, device=device)
    inputs = inputs_for(module.engine, rows)
    if inputs is None or len(inputs) != 1:
        raise SystemExit(f"{plan}: the plan must have one input, which may have {rows} rows")
    return module, inputs[0]


def operators(kind: str, count: int, like: torch.Tensor) -> Call:
    """`count` operators of PyTorch, one after the other, that keep the shape."""
    width = like.shape[-1]
    weight = torch.randn(width, width, device=like.device) / 16
    bias = torch.randn(width, device=like.device)
    step: Call = {
        "relu": torch.relu,
        "add": lambda x: torch.add(x, bias),
        "layer_norm": lambda x: torch.layer_norm(x, (width,), bias, bias),
        "linear": lambda x: torch._C._nn.linear(x, weight, bias),
    }[kind]

    def run(x: torch.Tensor) -> torch.Tensor:
        for _ in range(count):
            x = step(x)
        return x

    return run


def host_time(call: Call, x: torch.Tensor, rounds: int) -> float:
    """The fastest round, in microseconds for each call."""
    best = float("inf")
    for _ in range(rounds):
        if x.is_cuda:
            torch.cuda.synchronize()  # else the device's queue is full, and the device is what is measured
        started = perf_counter()
        for _ in range(CALLS):
            call(x)
        best = min(best, perf_counter() - started)
    return best / CALLS * 1e6


def graph_time(call: Call, x: torch.Tensor, rounds: int) -> float:
    """Device time of one replay, in microseconds, where replays follow one another: the fastest round."""
    for _ in range(3):
        call(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(x)
    best = float("inf")
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        graph.replay()
        begin.record()
        for _ in range(CALLS):
            graph.replay()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end))
    del result
    return best / CALLS * 1e3


def table(
    title: str, time: Callable[[Call, torch.Tensor, int], float], rounds: int, engine: Call, x: torch.Tensor
) -> None:
    print(f"\n{title} (µs), float32 {list(x.shape)}\n")
    counts = range(1, LONGEST + 1)
    print(f"| operators | {' | '.join(map(str, counts))} |")
    print(f"| --- |{' ---: |' * len(counts)}")
    for kind in ("add", "layer_norm", "linear", "relu"):
        cells = [time(operators(kind, count, x), x, rounds) for count in counts]
        print(f"| `{kind}` in PyTorch | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)
    print(f"| one engine | {' | '.join([f'{time(engine, x, rounds):.1f}'] * len(counts))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--plan", type=Path, help="an engine of pointwise operators with one input")
    parser.add_argument("--rows", type=int, default=8, help="first dimension of the plan's input")
    arguments = parser.parse_args()
    engine, x = one_engine(arguments.plan, arguments.rows, torch.device(arguments.device))
    with torch.no_grad():
        if x.is_cuda:
            with torch.cuda.stream(torch.cuda.Stream()):
                table("Called alone, host time", host_time, arguments.rounds, engine, x)
                table("In one CUDA graph, device time", graph_time, arguments.rounds, engine, x)
        else:
            table("Called alone", host_time, arguments.rounds, engine, x)


if __name__ == "__main__":
    main()
