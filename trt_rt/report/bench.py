"""One measurement: every mode and peer with every workload, then concurrency, layers and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

import trt_rt
from trt_rt.compiled import EnginePart, Partition
from trt_rt.errors import ExecutionError, SettingError, TRTError
from trt_rt.report.machine import describe_machine
from trt_rt.report.measuring import Measurement, PreparedCase, Timing
from trt_rt.report.modes import MODES, Call, Mode
from trt_rt.report.noise import notes_about
from trt_rt.report.result import Case, Concurrency, MeasuredLayer, Memory, Result, Step
from trt_rt.report.target import Target, Workload
from trt_rt.report.throughput import measure_throughput
from trt_rt.runtime import enable_pre_allocated_outputs, enable_profiling

__all__ = ["BenchSettings", "bench"]

_PROFILED_CALLS = 20


@dataclass(frozen=True)
class BenchSettings:
    """The settings of a measurement.

    Attributes
    ----------
    modes : sequence of Mode
        The ways to call; a mode that a target does not have is left out, with the reason.
    with_peers : bool
        Whether other ways to run the same model are measured too.
    timing : Timing
        How long.
    threads : sequence of int
        Numbers of threads for the throughput; empty: no throughput.
    """

    modes: Sequence[Mode] = MODES
    with_peers: bool = True
    timing: Timing = field(default_factory=Timing)
    threads: Sequence[int] = (1, 2, 4)


@dataclass
class _Found:
    """The results so far, which an interrupt keeps."""

    cases: tuple[Case, ...] = ()
    concurrency: tuple[Concurrency, ...] = ()
    layers: tuple[MeasuredLayer, ...] = ()
    memory: Memory | None = None
    skipped: dict[str, str] = field(default_factory=dict)


def bench(
    target: Target,
    workloads: Sequence[Workload],
    settings: BenchSettings | None = None,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Result:
    """Measure an engine or a program in several modes, side by side in one run.

    Parameters
    ----------
    target : Target
        What is measured.
    workloads : sequence of Workload
        The arguments of the calls; every mode is measured with each.
    settings : BenchSettings, optional
        What to measure.
    progress : callable, optional
        Gets the share of the work that is done, from 0 to 1.

    Returns
    -------
    Result
        After a KeyboardInterrupt, what had been measured until then, marked as interrupted.

    Raises
    ------
    SettingError
        No mode of `settings` can be measured.
    ExecutionError
        A mode's results differ from those of the first mode: its times would mean nothing.
    """
    settings = settings or BenchSettings()
    machine = describe_machine(target.device)
    found = _Found()
    interrupted = False
    with ExitStack() as stack:
        if target.device.type == "cuda":
            stack.enter_context(torch.cuda.device(target.device))
            stack.enter_context(torch.cuda.stream(torch.cuda.Stream(target.device)))
        stack.enter_context(torch.no_grad())
        try:
            _measure_all(target, workloads, settings, found, progress)
        except KeyboardInterrupt:
            interrupted = True
    return Result(
        target=target.name,
        engines=tuple(f"{engine.name}: {_backend_name(engine.backend)}" for engine in target.engines()),
        machine=machine,
        versions={"trt_rt": trt_rt.__version__}
        | {_backend_name(engine.backend): engine.tensorrt_version for engine in target.engines()},
        settings={
            "duration": settings.timing.duration,
            "iterations": settings.timing.iterations,
            "threads": list(settings.threads),
        },
        cases=found.cases,
        concurrency=found.concurrency,
        layers=found.layers,
        memory=found.memory,
        partition=_steps(target.partition),
        skipped=found.skipped,
        notes=notes_about(found.cases, machine),
        interrupted=interrupted,
    )


def _measure_all(
    target: Target,
    workloads: Sequence[Workload],
    settings: BenchSettings,
    found: _Found,
    progress: Callable[[float], None],
) -> None:
    with ExitStack() as stack:
        prepared = []
        for workload in workloads:
            prepared += _prepare(target, workload, settings, found, stack)
        measurement = Measurement(prepared, target.device, settings.timing)
        try:
            measurement.run(lambda share: progress(0.8 * share))
        finally:
            found.cases = measurement.cases()
    found.memory = _memory(target, workloads[-1])
    found.layers = _layers(target, workloads[-1], found)
    if settings.threads:
        found.concurrency = _concurrency(target, workloads[-1], settings)
    progress(1.0)


def _prepare(
    target: Target, workload: Workload, settings: BenchSettings, found: _Found, stack: ExitStack
) -> list[PreparedCase]:
    """Return the calls of one workload, checked against each other."""
    prepared = []
    expected: Any = None
    for mode in settings.modes:
        with ExitStack() as entered:
            try:
                call = mode.call(target, workload, entered)
                results = [_as_list(call()) for _ in range(3)]  # graphs exist after the first
            except (TRTError, ValueError) as error:
                found.skipped[mode.name] = str(error)
                continue
            stack.enter_context(entered.pop_all())
        expected = results[0] if expected is None else expected
        _check(mode.name, results[-1], expected)
        prepared.append(PreparedCase(mode.name, workload.label, False, call))
    if not prepared:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.skipped.items())
        raise SettingError(f"no mode can be measured with {workload.label}. {reasons}")
    for peer in target.peers if settings.with_peers else ():
        try:
            function = peer.make(workload)
            function()
        except Exception as error:  # whatever another project raises: its row is left out
            found.skipped[peer.name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        prepared.append(PreparedCase(peer.name, workload.label, True, Call(function)))
    return prepared


def _check(name: str, results: list[Any], expected: list[Any]) -> None:
    try:
        torch.testing.assert_close(results, expected, equal_nan=True)
    except AssertionError as error:
        raise ExecutionError(
            f"the results of mode {name!r} differ from those of the first mode, so its times mean nothing: "
            f"{error}"
        ) from error


def _as_list(result: Any) -> list[Any]:
    """Return copies of the tensors among results: a mode may overwrite them."""
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf.clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _memory(target: Target, workload: Workload) -> Memory:
    engines = {id(engine): engine for engine in target.engines()}.values()
    results = _as_list(target.new_module()(*workload.arguments, **workload.keywords))
    arguments = _as_list((workload.arguments, dict(workload.keywords)))
    return Memory(
        engines=sum(len(engine.serialize()) for engine in engines),
        workspace=sum(engine.workspace_size for engine in engines),
        inputs=sum(tensor.nbytes for tensor in arguments),
        outputs=sum(tensor.nbytes for tensor in results),
    )


def _layers(target: Target, workload: Workload, found: _Found) -> tuple[MeasuredLayer, ...]:
    module = target.new_module()
    try:
        with enable_profiling(module) as profile:
            module(*workload.arguments, **workload.keywords)
            profile.reset()  # the first call sets up its context
            for _ in range(_PROFILED_CALLS):
                module(*workload.arguments, **workload.keywords)
            layers = profile.layers
    except (TRTError, ValueError) as error:
        found.skipped["layers"] = str(error)
        return ()
    return tuple(
        MeasuredLayer(layer.engine, layer.layer, layer.total_ms * 1000 / layer.runs) for layer in layers
    )


def _concurrency(target: Target, workload: Workload, settings: BenchSettings) -> tuple[Concurrency, ...]:
    module = target.new_module()
    with enable_pre_allocated_outputs(module):
        return measure_throughput(
            lambda: Call(module, workload.arguments, workload.keywords),
            workload.label,
            target.device,
            settings.threads,
            settings.timing.duration,
        )


def _steps(partition: Partition | None) -> tuple[Step, ...]:
    if partition is None:
        return ()
    steps = []
    for step in partition.steps:
        if isinstance(step, EnginePart):
            steps.append(Step(step.name, ", ".join(step.operators)))
        else:
            steps.append(Step("PyTorch", step.operator, step.reason))
    return tuple(steps)


def _backend_name(backend: Any) -> str:
    return backend if isinstance(backend, str) else str(backend.name)
