"""The demonstration itself: build an engine, run the held-out digits in every mode, compare and time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.export import ExportedProgram

import trt_rt
from trt_rt.backend import BackendStatus
from trt_rt.compiler import BuiltPlan
from trt_rt.demo.data import Digits, load_held_out_digits
from trt_rt.demo.engine import LARGEST_BATCH, build_plan, choose_backend, export_program
from trt_rt.demo.measure import compare_with_first, measure_latency
from trt_rt.demo.modes import make_modes
from trt_rt.demo.network import load_trained_network
from trt_rt.demo.report import DemoReport, EngineReport, RtxPlanReport
from trt_rt.errors import TRTError

__all__ = ["report_rtx_plan", "run_demo"]

_BATCH_SIZES = (1, LARGEST_BATCH)
_RTX = "tensorrt_rtx"


def run_demo(calls: int) -> DemoReport:
    """Run the demonstration and return its report.

    Parameters
    ----------
    calls : int
        The number of timed calls for each mode and batch size.

    Raises
    ------
    TRTError
        No backend can build and run on this machine, or the chosen one fails.
    """
    statuses = trt_rt.backends()
    choice = choose_backend(statuses)
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    network = load_trained_network()
    program = export_program(network)
    built = build_plan(choice.backend, program, device.type)
    rtx_plan = report_rtx_plan(statuses[_RTX], built, program)
    network.to(device)
    digits = Digits(*(tensor.to(device) for tensor in load_held_out_digits()))
    with (
        torch.inference_mode(),
        _one_cpu_thread(),
        _side_stream(device),
        trt_rt.Engine.from_bytes(built.plan, backend=choice.backend, device=device) as engine,
    ):
        modes = make_modes(network, engine)
        agreement = compare_with_first(modes, digits, _BATCH_SIZES)
        latency = [
            found for size in _BATCH_SIZES for found in measure_latency(modes, digits.images, size, calls)
        ]
    return DemoReport(
        images=len(digits.labels),
        batch_sizes=_BATCH_SIZES,
        backends=statuses,
        engine=EngineReport(
            backend=choice.backend,
            reason=choice.reason,
            executed_by="PyTorch, not TensorRT" if choice.backend == "reference" else "TensorRT",
            device=_describe(device),
            plan_bytes=len(built.plan),
            build_seconds=built.build_seconds,
        ),
        tensorrt_rtx_plan=rtx_plan,
        agreement=agreement,
        latency=latency,
    )


def report_rtx_plan(status: BackendStatus, built: BuiltPlan, program: ExportedProgram) -> RtxPlanReport:
    """Build the TensorRT-RTX plan if this machine can, and report the plan or the reason.

    The plan is not loaded: that would need a GPU that TensorRT-RTX supports.

    Parameters
    ----------
    status : BackendStatus
        The status of TensorRT-RTX.
    built : BuiltPlan
        The plan that the demonstration runs. If TensorRT-RTX built it, this is the plan to report.
    program : torch.export.ExportedProgram
        The program to build.
    """
    if built.backend == _RTX:
        return RtxPlanReport(len(built.plan), built.build_seconds, "It is the engine that was run.")
    if not status.can_build:
        return RtxPlanReport(None, None, f"Not built. {status.reason}")
    try:
        plan = build_plan(_RTX, program)
    except TRTError as error:
        return RtxPlanReport(None, None, f"It could not be built: {error}")
    return RtxPlanReport(len(plan.plan), plan.build_seconds, _why_not_run(status))


def _side_stream(device: torch.device) -> AbstractContextManager[object]:
    """Leave CUDA's default stream, on which TensorRT synchronises."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def _why_not_run(status: BackendStatus) -> str:
    return "It was built, not run: " + (status.reason or "a better backend runs here.")


@contextmanager
def _one_cpu_thread() -> Iterator[None]:
    """Run PyTorch on one thread: on a busy machine its threads wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU, on one thread"
