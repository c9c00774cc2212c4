"""Calls a second of one module from several threads, each on a stream of its own, next to one thread."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import null_engine
import torch
from prepared_call import PreparedCall
from scenarios import DYNAMIC, SHAPE, current_stream, tensors

import trt_rt
from trt_rt.backend import Backend

THREADS = 8
CALLS = 200
ROUNDS = 31
BUSY_US = 20.0
HELD_US = (0.2, 0.5, 1.0)

Prepare = Callable[[], PreparedCall]


def new_module(device: torch.device, busy_us: float) -> trt_rt.TRTModule:
    plan = null_engine.plan(shape=DYNAMIC, launches_kernel=device.type == "cuda", busy_us=busy_us)
    backend = Backend("null", null_engine, runs_on_cpu=True)
    module = trt_rt.TRTModule(
        trt_rt.Engine.from_bytes(plan, backend=backend, device=device), max_contexts=THREADS + 1
    )
    module.set_pre_allocated_outputs(True)
    return module


class Callers:
    """Threads that stay, so that each has the same stream, tensors and execution context in every round."""

    def __init__(self, prepare: Prepare, device: torch.device, count: int) -> None:
        self.start = threading.Barrier(count + 1)
        self.end = threading.Barrier(count + 1)
        self.stopping = False
        self.device = device
        self.threads = [threading.Thread(target=self.run, args=(prepare,)) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, prepare: Prepare) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.cuda.set_stream(torch.cuda.Stream(self.device))
        call = prepare()
        while True:
            self.start.wait()
            if self.stopping:
                return
            call.repeat(CALLS)
            self.end.wait()

    def seconds(self) -> float:
        """How long all threads take for their calls."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.start.wait()
        begin = time.perf_counter()
        self.end.wait()
        return time.perf_counter() - begin

    def stop(self) -> None:
        self.stopping = True
        self.start.wait()
        for thread in self.threads:
            thread.join()


def module_calls(device: torch.device, busy_us: float) -> Prepare:
    """Calls of one module, from whatever thread."""
    module = new_module(device, busy_us)
    return lambda: PreparedCall(module, tensors(device, 1, SHAPE))


def bound_calls(device: torch.device, busy_us: float) -> Prepare:
    """Calls of one module that each thread has bound."""
    module = new_module(device, busy_us)
    return lambda: PreparedCall(module.bind(*tensors(device, 1, SHAPE)))


def bare_calls(device: torch.device, busy_us: float, held_us: float = 0) -> Prepare:
    """Calls of ``execute_async_v3`` alone, a context for each thread: what the GIL leaves room for.

    With `held_us` they keep the GIL longer, and do nothing else that a runtime does.
    """
    plan = null_engine.plan(shape=DYNAMIC, launches_kernel=device.type == "cuda", busy_us=busy_us)
    engine = null_engine.Runtime(null_engine.ILogger()).deserialize_cuda_engine(plan)
    assert engine is not None

    def prepare() -> PreparedCall:
        context = engine.create_execution_context()
        context.held_us = held_us
        return PreparedCall(context.execute_async_v3, (current_stream(device),))

    return prepare


def calls_a_second(device: torch.device, kinds: dict[str, Prepare]) -> dict[str, tuple[float, float]]:
    """Of one thread and of `THREADS`, for each kind of call, all in the same rounds."""
    callers = {
        name: (Callers(prepare, device, 1), Callers(prepare, device, THREADS))
        for name, prepare in kinds.items()
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    try:
        for _ in range(ROUNDS + 1):
            for name, (one, many) in callers.items():
                taken[name].append((one.seconds(), many.seconds()))
    finally:
        for both in callers.values():
            for each in both:
                each.stop()
    return {
        name: (
            statistics.median(CALLS / seconds for seconds, _ in rounds[1:]),
            statistics.median(CALLS * THREADS / seconds for _, seconds in rounds[1:]),
        )
        for name, rounds in taken.items()
    }


def thread_table(device: torch.device) -> str:
    """As Markdown."""
    lines = [
        f"### {THREADS} threads on {THREADS} streams over one module",
        "",
        "| enqueue | call | calls/s, 1 thread | calls/s, all threads | ratio | target on a GPU |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for busy_us, label, target in (
        (BUSY_US, f"{BUSY_US:g} µs without the GIL", 5),
        (0.0, "nothing without the GIL", 1),
    ):
        kinds = {
            "module": module_calls(device, busy_us),
            "bind": bound_calls(device, busy_us),
            "bare": bare_calls(device, busy_us),
        }
        if busy_us:
            for held_us in HELD_US:
                kinds[f"bare, the GIL {held_us:g} µs longer"] = bare_calls(device, busy_us, held_us)
        for name, (alone, together) in calls_a_second(device, kinds).items():
            wanted = f"≥ {target}" if name == "module" else "none"
            ratio = together / alone
            lines.append(f"| {label} | {name} | {alone:,.0f} | {together:,.0f} | {ratio:.2f} | {wanted} |")
    return "\n".join(lines)
