"""A capture that CUDA invalidates, because another thread waits for the whole device, costs no result.

On a GPU another thread does that in the middle of the capture. A CPU has nothing to capture, so there
the step that stands for the capture raises what the core makes of CUDA's error.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.behaviours.recording import recorded
from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import ExecutionError, TRTModule
from trt_rt._core.capture_attempts import CaptureInvalidatedError, raise_invalidated
from trt_rt.backend import load
from trt_rt.runtime import enable_cudagraphs

pytestmark = pytest.mark.behaviour(38)

KINDS = ["an engine", "a program", "a program with random numbers"]
GIVES_UP = "invalidated 3 captures of .* in succession"


class Doubled(torch.nn.Module):
    """Calls an engine, with something between its start and its end that a test chooses."""

    def __init__(self, engine: TRTModule, *, draws: bool) -> None:
        super().__init__()
        self.engine = engine
        self.draws = draws
        self.register_buffer("calls", torch.zeros((), device=engine.engine.device))
        self.meanwhile: Callable[[], object] = lambda: None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y = self.engine(x)
        self.meanwhile()
        if self.draws:
            y = y + torch.rand_like(y) * 0
        return y * 2


class Captured:
    """An engine or a program, and a way to let its captures be invalidated."""

    def __init__(self, kind: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device = device
        self.backend, self._calls = recorded(load("reference"))
        self.engine = TRTModule(plans.affine(device=device), backend=self.backend, device=device)
        self.is_whole = kind != "an engine"
        self.program = Doubled(self.engine, draws="random" in kind) if self.is_whole else self.engine
        self._monkeypatch = monkeypatch
        self._left = 0

    def graphs(self, **options: Any) -> Any:
        return enable_cudagraphs(self.program, whole_graph=self.is_whole, **options)

    def input(self, size: int = 3) -> torch.Tensor:
        return torch.randn(size, 7, device=self.device)

    def check(self, run: Callable[[torch.Tensor], Any], x: torch.Tensor) -> None:
        torch.testing.assert_close(run(x), eager_affine(x) * (2 if self.is_whole else 1))

    def stats(self, run: Any) -> tuple[int, int, int]:
        """Captures, replays and invalidated captures so far."""
        stats = run.stats() if self.is_whole else self.engine.stats()
        return stats["captures"], stats["replays"], stats["invalidated_captures"]

    @contextlib.contextmanager
    def invalidated(self, times: int) -> Iterator[None]:
        """Let the next captures be invalidated, and check that there were as many."""
        self._left = times
        with self._monkeypatch.context() as patch:
            if self.device == "cuda" and self.is_whole:
                patch.setattr(self.program, "meanwhile", self._disturb)
            elif self.device == "cuda":
                patch.setattr(self._calls, "make", self._make)
            elif self.is_whole:
                patch.setattr("trt_rt.capture.program_capture.HostRun", self._fail)
            else:
                patch.setattr("trt_rt._core.call.without_garbage_collection", self._fail)
            yield
        assert self._left == 0

    def _fail(self, *arguments: Any) -> Any:
        assert self._left > 0
        self._left -= 1
        raise CaptureInvalidatedError("cuStreamEndCapture failed with CUDA_ERROR_STREAM_CAPTURE_INVALIDATED.")

    def _make(self, name: str, method: Any, arguments: tuple[Any, ...]) -> Any:
        if name == "execute_async_v3":
            with torch.cuda.stream(torch.cuda.ExternalStream(arguments[0])):
                self._disturb()
        return method(*arguments)

    def _disturb(self) -> None:
        if self._left == 0 or not torch.cuda.is_current_stream_capturing():
            return
        self._left -= 1
        with ThreadPoolExecutor(1) as thread:
            error = thread.submit(torch.cuda.synchronize, self.device).exception(SECONDS_UNTIL_DEADLOCK)
        assert "capturing" in str(error)  # CUDA refuses the wait, too


@pytest.fixture(params=KINDS)
def captured(request: pytest.FixtureRequest, device: str, monkeypatch: pytest.MonkeyPatch) -> Captured:
    return Captured(request.param, device, monkeypatch)


@pytest.mark.parametrize("times", [1, 2])
def test_the_call_returns_and_a_later_one_captures(captured: Captured, times: int) -> None:
    x = captured.input()
    with captured.graphs() as run:
        with captured.invalidated(times):
            for count in range(times):
                captured.check(run, x)
                assert captured.stats(run) == (0, 0, count + 1)
        captured.check(run, x)
        assert captured.stats(run) == (1, 0, times)
        captured.check(run, x.neg_())
        assert captured.stats(run) == (1, 1, times)


def test_after_three_in_succession_calls_go_on_without_graphs(captured: Captured) -> None:
    x, other = captured.input(), captured.input(5)
    with captured.graphs() as run:
        captured.check(run, other)
        with captured.invalidated(3):
            captured.check(run, x)
            captured.check(run, x)
            with pytest.warns(RuntimeWarning, match=GIVES_UP) as caught:
                captured.check(run, x)
        assert len(caught) == 1
        for _ in range(3):
            captured.check(run, x.neg_())
        assert captured.stats(run) == (1, 0, 3)
        captured.check(run, other)
        assert captured.stats(run) == (1, 1, 3)
    with captured.graphs() as run:
        for _ in range(2):
            captured.check(run, x)
        assert captured.stats(run)[:2] == ((1, 1) if captured.is_whole else (2, 2))


def test_only_those_in_succession_count(captured: Captured) -> None:
    with captured.graphs() as run:
        for size in (1, 2, 3):
            x = captured.input(size)
            with captured.invalidated(2):
                captured.check(run, x)
                captured.check(run, x)
            captured.check(run, x)
        assert captured.stats(run) == (3, 0, 6)


def test_state_advances_once_a_call(captured: Captured) -> None:
    if not captured.is_whole:
        pytest.skip("an engine without state")
    x = captured.input()
    with captured.graphs() as run, captured.invalidated(2):
        for count in (1, 2):
            captured.check(run, x)
            assert captured.program.calls.item() == count


def test_a_warning_that_is_an_error_costs_one_call(captured: Captured) -> None:
    x = captured.input()
    with captured.graphs() as run:
        with captured.invalidated(3):
            captured.check(run, x)
            captured.check(run, x)
            with pytest.raises(RuntimeWarning, match=GIVES_UP):
                run(x)
        captured.check(run, x)


def test_a_bound_call(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = Captured("an engine", device, monkeypatch)
    x = captured.input()
    with captured.graphs():
        bound = captured.engine.bind(x)
        with captured.invalidated(1):
            torch.testing.assert_close(bound(), eager_affine(x))
        for graphs in ((1, 0, 1), (1, 1, 1)):
            expected = eager_affine(x.neg_())
            torch.testing.assert_close(bound(), expected)
            assert captured.stats(captured.engine) == graphs
        other = captured.engine.bind(y := captured.input())
        expected = eager_affine(y)
        with captured.invalidated(3):
            torch.testing.assert_close(other(), expected)
            torch.testing.assert_close(other(), expected)
            with pytest.warns(RuntimeWarning, match=GIVES_UP):
                torch.testing.assert_close(other(), expected)
        expected = eager_affine(y.neg_())
        torch.testing.assert_close(other(), expected)
        expected = eager_affine(x.neg_())
        torch.testing.assert_close(bound(), expected)
        assert captured.stats(captured.engine) == (1, 2, 4)


def test_pre_allocated_results(captured: Captured) -> None:
    x = captured.input()
    captured.engine.set_pre_allocated_outputs(True)
    with captured.graphs() as run:
        with captured.invalidated(2):
            captured.check(run, x)
            captured.check(run, x)
        for _ in range(3):
            captured.check(run, x.neg_())


@pytest.mark.gpu
def test_a_thread_that_waits_for_the_device_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever that falls into a capture, calls return what they should."""
    captured = [Captured(kind, "cuda", monkeypatch) for kind in KINDS]
    stop = threading.Event()

    def wait() -> int:
        refused = 0
        while not stop.is_set():
            with contextlib.suppress(RuntimeError):  # it is refused during a capture
                torch.cuda.synchronize()
                continue
            refused += 1
        return refused

    with ThreadPoolExecutor(1) as thread, contextlib.ExitStack() as graphs:
        runs = [graphs.enter_context(each.graphs()) for each in captured]
        refused = thread.submit(wait)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for size in (*range(1, 25), *range(1, 25)):
                    for each, run in zip(captured, runs, strict=True):
                        each.check(run, each.input(size))
        finally:
            stop.set()
        assert refused.result(SECONDS_UNTIL_DEADLOCK) >= sum(
            each.stats(run)[2] for each, run in zip(captured, runs, strict=True)
        )
        assert all("in succession" in str(warning.message) for warning in caught)


def test_an_operation_that_cannot_be_captured_is_still_refused() -> None:
    """What CUDA refuses in a capture is the program's fault, not another thread's."""
    own = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    raise_invalidated(own, is_invalidated=True)
    raise_invalidated(torch.OutOfMemoryError("CUDA out of memory"), is_invalidated=True)
    raise_invalidated(ValueError("of the program"), is_invalidated=True)
    raise_invalidated(RuntimeError("of the program"), is_invalidated=False)
    for error, is_invalidated in (
        (RuntimeError("CUDA error: operation failed due to a previous error during capture"), False),
        (ExecutionError("engine 'x': execute_async_v3 failed."), True),
    ):
        with pytest.raises(CaptureInvalidatedError) as caught:
            raise_invalidated(error, is_invalidated=is_invalidated)
        assert caught.value.__cause__ is error
