"""Explains a call: makes it once, and tells what it did and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

from trt_rt._core.critical import between
from trt_rt._core.dynamo import hide_from_dynamo
from trt_rt.capture import WholeGraph
from trt_rt.compiled import Program
from trt_rt.module import TRTModule
from trt_rt.module.find_engines import as_module
from trt_rt.observe.engine_call import EngineCall, explained_call
from trt_rt.observe.explanation import Explanation, ProgramCall
from trt_rt.observe.observation import Observation
from trt_rt.observe.span_tree import SpanTree, TimedSpan

__all__ = ["explain"]


def explain(module: torch.nn.Module | ExportedProgram, /, *inputs: Any, **keywords: Any) -> Explanation:
    """Make a call, and tell in words what it did and why.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        A `TRTModule`, or anything with engines anywhere in it.
    *inputs, **keywords
        The arguments of the call.

    Returns
    -------
    Explanation
        ``print`` it: the first line answers "why is this slow?". It also has fields.

    Raises
    ------
    ValueError
        There is no engine in `module`.
    TypeError
        `module` is neither a module nor a program.
    Exception
        Whatever the call raises.

    Notes
    -----
    The call is one like any other, in the module's present modes: results are dropped, counters rise by one
    call, and with CUDA graphs on it may capture a graph. Nothing else changes. It is made on the calling
    thread and the current stream, whose state it explains. On a GPU, this function waits until the call's
    work is done.

    The first call with new shapes, or with new addresses while CUDA graphs are on, does what later calls need
    not do. Call the module first to learn about its steady state.

    Examples
    --------
    >>> y = module(x)  # later calls with these shapes do less
    >>> explanation = explain(module, x.transpose(2, 3))
    >>> explanation.engines[0].copied
    ('x',)
    >>> print(explanation)  # doctest: +ELLIPSIS
    The call took ... µs on the host...
    """
    module = as_module(module)
    tree = SpanTree()
    observation = Observation(module, tree)
    contexts_before = [engine.stats()["contexts"] for engine in observation.engines]
    clock = _Clock(_device_of(observation.engines))

    def call() -> None:
        clock.start()
        module(*inputs, **keywords)
        clock.stop()

    between(observation.begin, call, observation.end)
    return Explanation(
        host_us=clock.host_us,
        device_us=clock.device_us,
        engines=tuple(_engine_calls(tree.root, observation.engines, contexts_before)),
        program=_program_call(module, tree.root),
    )


def _engine_calls(
    root: TimedSpan, engines: tuple[TRTModule, ...], contexts_before: list[int]
) -> Iterator[EngineCall]:
    for timed in root.all("call"):
        for engine, before in zip(engines, contexts_before, strict=True):
            if timed.span.executor in engine.executors.pool.all():
                made = engine.stats()["contexts"] - before
                yield explained_call(timed, engine, made_contexts=made)


def _program_call(module: torch.nn.Module, root: TimedSpan) -> ProgramCall | None:
    """Describe what is around the engines; None for a module of one engine."""
    if isinstance(module, TRTModule):
        return None
    inner = module.program if isinstance(module, WholeGraph) else module
    operators = None
    if isinstance(inner, Program):
        operators = tuple(step.operator for step in inner.partition.torch_operators)
    served, reason = "", ""
    if isinstance(module, WholeGraph):
        counts = next(root.all("program")).span.counts
        served = "capture" if counts["captures"] else "replay" if counts["replays"] else "no graph"
        if counts["invalidated_captures"]:
            reason = "CUDA invalidated the capture, usually because another thread waited for the device"
        elif served == "no graph":
            reason = module.reason_without_graph()
    return ProgramCall(type(inner).__name__, operators, served, reason)


def _device_of(engines: tuple[TRTModule, ...]) -> torch.device:
    return engines[0].engine.device


class _Clock:
    """Times a call: on the host, and on a GPU until its work is done.

    Attributes
    ----------
    host_us : float
        Microseconds until the call returned.
    device_us : float or None
        Microseconds of its work on the GPU; None on a CPU, and while the stream is captured.
    """

    def __init__(self, device: torch.device) -> None:
        self.host_us = 0.0
        self.device_us: float | None = None
        self._device = device
        self._begin = 0
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None

    def start(self) -> None:
        if self._device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
            self._events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            self._events[0].record(torch.cuda.current_stream(self._device))
        self._begin = time.perf_counter_ns()

    def stop(self) -> None:
        self.host_us = (time.perf_counter_ns() - self._begin) / 1000
        if self._events is not None:
            begin, end = self._events
            end.record(torch.cuda.current_stream(self._device))
            end.synchronize()
            self.device_us = begin.elapsed_time(end) * 1000


hide_from_dynamo(globals())
