"""What a part of k operators costs in PyTorch, and as one engine: python bench/block_size.py [--rounds N]

The figures behind the default of `min_block_size`. The engine launches one empty kernel, so its time is what
the call of any engine costs at least; what fusing gains comes on top. On a GPU each is measured called alone
(host time), and as part of a CUDA graph of a whole program (device time).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import null_engine
import torch

import trt_rt

LONGEST = 8
CALLS = 200
SHAPE = (64, 256)

Call = Callable[[torch.Tensor], torch.Tensor]


def one_engine(device: torch.device) -> Call:
    backend = trt_rt.Backend("null", null_engine, runs_on_cpu=True)
    plan = null_engine.plan(inputs=1, outputs=1, shape=SHAPE)
    return trt_rt.TRTModule(trt_rt.Engine.from_bytes(plan, backend=backend, device=device))


def operators(kind: str, count: int, device: torch.device) -> Call:
    weight = torch.randn(SHAPE[1], SHAPE[1], device=device) / 16
    bias = torch.randn(SHAPE[1], device=device)
    step: Call = {
        "relu": torch.relu,
        "add": lambda x: torch.add(x, bias),
        "layer_norm": lambda x: torch.layer_norm(x, SHAPE[1:], bias, bias),
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


def table(title: str, time: Callable[[Call, torch.Tensor, int], float], rounds: int, x: torch.Tensor) -> None:
    print(f"\n{title} (µs)\n")
    counts = range(1, LONGEST + 1)
    print(f"| call | {' | '.join(map(str, counts))} |")
    print(f"| --- |{' ---: |' * len(counts)}")
    for kind in ("add", "layer_norm", "linear", "relu"):
        cells = [time(operators(kind, count, x.device), x, rounds) for count in counts]
        print(f"| `{kind}` in PyTorch | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)
    print(f"| one engine | {' | '.join([f'{time(one_engine(x.device), x, rounds):.1f}'] * len(counts))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    x = torch.randn(SHAPE, device=arguments.device)
    with torch.no_grad():
        if x.is_cuda:
            with torch.cuda.stream(torch.cuda.Stream()):
                table("Called alone, host time", host_time, arguments.rounds, x)
                table("In one CUDA graph, device time", graph_time, arguments.rounds, x)
        else:
            table("Called alone", host_time, arguments.rounds, x)


if __name__ == "__main__":
    main()
