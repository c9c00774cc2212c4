"""On a GPU: stream order, CUDA graphs, memory, and nothing left changed."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import RecordingLogger, Session
from tests.reference.test_inspection import RecordingProfiler
from trt_rt import reference as trt

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.gpu

SLEEP_CYCLES = 200_000_000  # about a tenth of a second


@pytest.fixture
def session() -> Session:
    session = Session(plans.affine(device="cuda"), "cuda")
    session.run(torch.ones(4, 7))
    torch.cuda.synchronize()
    return session


def capture(session: Session) -> tuple[torch.cuda.CUDAGraph, bool]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=session.stream):
        succeeded = session.context.execute_async_v3(session.stream.cuda_stream)
    return graph, succeeded


def test_a_run_is_ordered_with_its_stream_and_does_not_wait(session: Session) -> None:
    x, y = session.bound["x"], session.bound["output0"]
    with torch.cuda.stream(session.stream):
        torch.cuda._sleep(SLEEP_CYCLES)
        x.fill_(5)
        assert session.context.execute_async_v3(session.stream.cuda_stream)
        result = y.clone()
        done = torch.cuda.Event()
        done.record()
    assert not done.query()
    done.synchronize()
    assert result.eq(11).all()


def test_two_contexts_on_two_streams() -> None:
    sessions = [Session(plans.streaming("cuda"), "cuda") for _ in range(2)]
    xs = [torch.randn(8, 1, 8, 8) for _ in sessions]
    for session, x in zip(sessions, xs, strict=True):
        session.run(x)
    for _ in range(20):
        assert all(session.context.execute_async_v3(session.stream.cuda_stream) for session in sessions)
    torch.cuda.synchronize()
    for session, x in zip(sessions, xs, strict=True):
        expected = plans.convolutions()(x).detach()
        torch.testing.assert_close(session.result("output0").cpu(), expected, rtol=1e-3, atol=1e-3)


def test_the_current_stream_and_device_stay(session: Session) -> None:
    before = torch.cuda.current_stream(), torch.cuda.current_device()
    assert session.enqueue()
    assert (torch.cuda.current_stream(), torch.cuda.current_device()) == before


def test_the_default_stream_is_warned_of_once(session: Session) -> None:
    session.logger.messages.clear()
    for _ in range(3):
        assert session.context.execute_async_v3(0)
    torch.cuda.synchronize()
    ((severity, message),) = session.logger.messages
    assert severity == trt.ILogger.WARNING
    assert message.startswith("Using default stream in enqueueV3()")


def test_a_captured_run_can_be_replayed_with_other_values(session: Session) -> None:
    graph, succeeded = capture(session)
    assert succeeded, session.logger.errors
    for value in (1.0, 2.0, -1.0):
        session.bound["x"].fill_(value)
        graph.replay()
        assert session.bound["output0"].eq(max(value, 0) * 2 + 1).all()


class DriverGraph:
    """A run captured through the driver, of which PyTorch knows nothing."""

    def __init__(self, session: Session) -> None:
        self.driver = pytest.importorskip("cuda.bindings.driver")
        self.stream = self.driver.CUstream(session.stream.cuda_stream)
        mode = self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.check(self.driver.cuStreamBeginCapture(self.stream, mode))
        succeeded = session.context.execute_async_v3(session.stream.cuda_stream)
        self.graph = self.check(self.driver.cuStreamEndCapture(self.stream))
        assert succeeded, session.logger.errors
        self.launchable = self.check(self.driver.cuGraphInstantiate(self.graph, 0))

    def launch(self) -> None:
        self.check(self.driver.cuGraphLaunch(self.launchable, self.stream))
        torch.cuda.synchronize()

    def close(self) -> None:
        self.check(self.driver.cuGraphExecDestroy(self.launchable))
        self.check(self.driver.cuGraphDestroy(self.graph))

    @staticmethod
    def check(result: tuple[Any, ...]) -> Any:
        error, *values = result
        assert error.value == 0, error
        return values[0] if values else None


def test_a_run_captured_by_the_driver_keeps_its_scratch_memory() -> None:
    session = Session(plans.streaming("cuda"), "cuda")
    x = torch.randn(8, 1, 8, 8)
    session.run(x)
    torch.cuda.synchronize()
    expected = session.bound["output0"].clone()
    graph = DriverGraph(session)

    # Others take all the memory that the run has given back, and overwrite it.
    others = [torch.full((1 << 18,), float("nan"), device="cuda") for _ in range(64)]
    others += [torch.full((64,), float("nan"), device="cuda") for _ in range(4096)]
    Session(plans.affine(device="cuda"), "cuda").run(torch.ones(4, 7))
    session.bound["output0"].zero_()
    torch.cuda.synchronize()
    graph.launch()
    assert torch.equal(session.bound["output0"], expected)
    assert all(bool(tensor.isnan().all()) for tensor in others)
    graph.close()


def test_captured_contexts_may_go_while_another_thread_captures(session: Session) -> None:
    graph = torch.cuda.CUDAGraph()
    x = torch.ones(4, device="cuda")

    def use_and_drop() -> None:
        other = Session(plans.streaming("cuda"), "cuda")
        other.run(torch.zeros(8, 1, 8, 8))
        other.stream.synchronize()
        DriverGraph(other).close()

    use_and_drop()
    gc.collect()  # what other tests have left, and whose end a capture may forbid
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        y = x + 1
        worker = threading.Thread(target=use_and_drop)
        worker.start()
        worker.join()
        gc.collect()
    graph.replay()
    assert y.eq(2).all()


def test_captures_one_after_the_other_share_memory() -> None:
    def capture_once() -> None:
        session = Session(plans.streaming("cuda"), "cuda")
        session.run(torch.zeros(8, 1, 8, 8))
        torch.cuda.synchronize()
        DriverGraph(session).close()

    def reserved() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    capture_once()
    before = reserved()
    for _ in range(5):
        capture_once()
    # A stream of another handle cannot use the blocks of an earlier one.
    assert reserved() - before <= 5 * (2 << 20)


def test_a_process_ends_quietly_with_captured_contexts() -> None:
    code = """
import torch
from tests.reference import plans
from tests.reference.harness import Session
from tests.reference.test_cuda import DriverGraph, capture
session = Session(plans.streaming("cuda"), "cuda")
session.run(torch.zeros(8, 1, 8, 8))
torch.cuda.synchronize()
graphs = DriverGraph(session), capture(session)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def assert_refuses_capture(session: Session, reason: str) -> None:
    assert not session.context.is_stream_capturable(session.stream.cuda_stream)
    session.logger.messages.clear()
    graph = torch.cuda.CUDAGraph()
    x = torch.ones(4, device="cuda")
    with torch.cuda.graph(graph, stream=session.stream):
        succeeded = session.context.execute_async_v3(session.stream.cuda_stream)
        y = x + 1
    assert not succeeded
    assert reason in session.logger.take_error()
    # The refusal came before anything that would have broken the capture.
    graph.replay()
    assert y.eq(2).all()
    assert session.enqueue()


def test_data_dependent_shapes_cannot_be_captured() -> None:
    session = Session(plans.nonzero("cuda"), "cuda")
    session.run(torch.eye(3, 5))
    assert_refuses_capture(session, "data-dependent shapes")


def test_streamed_weights_cannot_be_captured() -> None:
    session = Session(plans.streaming("cuda"), "cuda")
    del session.context
    session.engine.weight_streaming_budget_v2 = 0
    session.context = session.engine.create_execution_context()
    session.run(torch.zeros(2, 1, 8, 8))
    assert_refuses_capture(session, "weights are being streamed")


def test_profiled_runs_cannot_be_captured(session: Session) -> None:
    session.context.profiler = RecordingProfiler()
    assert_refuses_capture(session, "layers are being profiled")


def test_shape_tensors_can_be_captured() -> None:
    session = Session(plans.shape_tensor(device="cuda"), "cuda")
    x = torch.randn(4)
    session.run(x, torch.tensor([6]))
    torch.cuda.synchronize()
    assert session.context.is_stream_capturable(session.stream.cuda_stream)
    graph, succeeded = capture(session)
    assert succeeded, session.logger.errors
    session.bound["x"].add_(1)
    graph.replay()
    torch.testing.assert_close(session.bound["output0"].cpu(), (x + 1)[torch.arange(6) % 4])


def test_streamed_runs_are_over_when_they_return() -> None:
    session = Session(plans.streaming("cuda"), "cuda")
    del session.context
    session.engine.weight_streaming_budget_v2 = 0
    session.context = session.engine.create_execution_context()
    session.run(torch.zeros(2, 1, 8, 8))
    with torch.cuda.stream(session.stream):
        torch.cuda._sleep(SLEEP_CYCLES)
    assert session.context.execute_async_v3(session.stream.cuda_stream)
    assert session.stream.query()


def test_many_runs_take_no_memory(session: Session) -> None:
    def memory() -> tuple[int, int]:
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    before = memory()
    for _ in range(2000):
        assert session.context.execute_async_v3(session.stream.cuda_stream)
    assert memory() == before


def test_what_is_dropped_gives_its_memory_back() -> None:
    plan = plans.streaming("cuda")

    def use() -> None:
        session = Session(plan, "cuda")
        session.run(torch.zeros(32, 1, 8, 8))
        torch.cuda.synchronize()

    def memory() -> tuple[int, int]:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    use()
    before = memory()
    for _ in range(5):
        use()
    assert memory() == before


def test_threads_with_a_context_each() -> None:
    plan = plans.streaming("cuda")
    engine = trt.Runtime(RecordingLogger()).deserialize_cuda_engine(plan)
    assert engine is not None
    expected: dict[int, torch.Tensor] = {}
    results: dict[int, torch.Tensor] = {}
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            session = Session(plan, "cuda")
            session.context = engine.create_execution_context()
            x = torch.randn(number + 1, 1, 8, 8)
            for _ in range(10):
                (y,) = session.run(x)
            expected[number] = plans.convolutions()(x).detach()
            session.stream.synchronize()
            results[number] = y.cpu()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number, result in results.items():
        torch.testing.assert_close(result, expected[number], rtol=1e-3, atol=1e-3)


def test_a_plan_for_the_cpu_runs_on_the_cpu() -> None:
    session = Session(plans.affine())
    assert session.run(torch.ones(2, 7))[0].device.type == "cpu"


def test_a_network_that_was_exported_on_the_gpu() -> None:
    class Mixed(torch.nn.Module):
        def forward(self, x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
            rows = (length + torch.ones(1, dtype=torch.int64))[0].item()
            return x.expand(rows, 3) + torch.ones(3, device=x.device)

    example = (torch.zeros(1, 3, device="cuda"), torch.tensor([2]))
    for device in ("cuda", "cpu"):
        session = Session(trt.build(Mixed(), example, shape_inputs=["length"], device=device), device)
        (y,) = session.run(torch.ones(1, 3), torch.tensor([4]))
        assert y.shape == (5, 3)
        assert y.eq(2).all()
        assert y.device.type == device
