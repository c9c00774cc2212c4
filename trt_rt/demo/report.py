"""The report of the demonstration: plain data, and its tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_rt.backend import BackendStatus
from trt_rt.demo.measure import Agreement, Latency

__all__ = ["DemoReport", "EngineReport", "RtxPlanReport", "print_report"]


@dataclass(frozen=True)
class EngineReport:
    """The engine that was run.

    Attributes
    ----------
    backend : str
        The backend that built and ran it.
    reason : str
        Why this backend was chosen, in sentences.
    executed_by : str
        The library that did the arithmetic: TensorRT or, for the reference backend, PyTorch.
    device : str
        The name of the device that ran it.
    plan_bytes : int
        Size of its plan.
    build_seconds : float
        Time to build it, without the export from PyTorch.
    """

    backend: str
    reason: str
    executed_by: str
    device: str
    plan_bytes: int
    build_seconds: float


@dataclass(frozen=True)
class RtxPlanReport:
    """The TensorRT-RTX plan of the same network, which needs no GPU to be built.

    Attributes
    ----------
    plan_bytes : int or None
        Its size; None if it was not built.
    build_seconds : float or None
        Time to build it, without the export from PyTorch.
    remark : str
        Why it was not built and what to install, or whether it was run.
    """

    plan_bytes: int | None
    build_seconds: float | None
    remark: str

    def describe(self) -> str:
        """Return the report as sentences."""
        if self.plan_bytes is None:
            return self.remark
        return f"{self.plan_bytes:,} bytes, built in {self.build_seconds:.2f} s. {self.remark}"


@dataclass(frozen=True)
class DemoReport:
    """The results of ``trt-rt demo``.

    Attributes
    ----------
    images : int
        Number of held-out digits.
    batch_sizes : tuple of int
        Batch sizes that the digits were run in.
    backends : mapping of str to BackendStatus
        What each backend can do on this machine.
    engine : EngineReport
        The engine that was run.
    tensorrt_rtx_plan : RtxPlanReport
        The TensorRT-RTX plan.
    agreement : list of Agreement
        Per mode, eager PyTorch first.
    latency : list of Latency
        Per batch size and mode.
    """

    images: int
    batch_sizes: tuple[int, ...]
    backends: Mapping[str, BackendStatus]
    engine: EngineReport
    tensorrt_rtx_plan: RtxPlanReport
    agreement: list[Agreement]
    latency: list[Latency]

    @property
    def disagreeing_modes(self) -> list[str]:
        """Modes that read at least one digit differently from eager PyTorch."""
        return [found.mode for found in self.agreement if found.differing_predictions]

    def as_json(self) -> dict[str, Any]:
        """Return the report as a dict for :func:`json.dumps`."""
        return asdict(self)


def print_report(report: DemoReport, console: Console) -> None:
    """Print the report as tables and sentences."""
    engine, rtx = report.engine, report.tensorrt_rtx_plan
    console.print(_backends_table(report.backends))
    for sentence in (
        f"Backend: {engine.backend}. {engine.reason}",
        f"The engine is executed by {engine.executed_by}, on {engine.device}. "
        f"Plan: {engine.plan_bytes:,} bytes, built in {engine.build_seconds:.2f} s.",
        f"TensorRT-RTX plan of the same network: {rtx.describe()}",
    ):
        # Without markup, because brackets in the name of an extra to install are text.
        console.print(sentence, markup=False, highlight=False)
    console.print(_agreement_table(report))
    for batch_size in report.batch_sizes:
        console.print(_latency_table(report, batch_size))
    console.print(_explain_latency(report), markup=False, highlight=False)


def _backends_table(backends: Mapping[str, BackendStatus]) -> Table:
    table = Table("backend", "version", "builds", "runs", "why not", title="Backends on this machine")
    for status in backends.values():
        table.add_row(
            status.name,
            status.version or ("?" if status.installed else "not installed"),
            _yes_or_no(status.can_build),
            _yes_or_no(status.can_run),
            Text(status.reason),
        )
    return table


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _agreement_table(report: DemoReport) -> Table:
    sizes = " and ".join(map(str, report.batch_sizes))
    table = Table(
        title=f"{report.images} held-out handwritten digits, in batches of {sizes}",
        caption="Differences are from eager PyTorch: predictions, and the largest of any score.",
    )
    table.add_column("mode", no_wrap=True)
    for heading in ("accuracy", "predictions that differ", "largest difference"):
        table.add_column(heading, justify="right")
    for found in report.agreement:
        table.add_row(
            found.mode,
            f"{found.accuracy:.2%}",
            str(found.differing_predictions),
            f"{found.largest_difference:.2g}",
        )
    return table


def _latency_table(report: DemoReport, batch_size: int) -> Table:
    rows = [latency for latency in report.latency if latency.batch_size == batch_size]
    images = "1 image" if batch_size == 1 else f"{batch_size} images"
    table = Table(title=f"Latency of one call with {images}, microseconds")
    table.add_column("mode", no_wrap=True)
    for heading in ("median", "p99"):
        table.add_column(heading, justify="right")
    if _on_cuda(report):
        for heading in ("median until done", "p99 until done"):
            table.add_column(heading, justify="right")
    for row in rows:
        values = (row.median_us, row.p99_us, row.synchronized_median_us, row.synchronized_p99_us)
        table.add_row(row.mode, *(f"{value:,.1f}" for value in values if value is not None))
    return table


def _explain_latency(report: DemoReport) -> str:
    sentence = "Modes were measured in turns. Times are the host's until the call returns"
    if _on_cuda(report):
        sentence += ", which is when the work is enqueued, and until the GPU is done with it."
    else:
        sentence += " with its result. A CPU has no CUDA graphs: those rows run a context left set up."
    if report.engine.backend == "reference":
        sentence += " The reference backend is right, not fast: compare the modes with each other."
    return sentence


def _on_cuda(report: DemoReport) -> bool:
    return report.latency[0].synchronized_median_us is not None
