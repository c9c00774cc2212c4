"""Progress of a real build, and the ways to end one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from tests.compiler.models import exported
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt import CompileError, build
from trt_rt.backend import Backend
from trt_rt.compiler import BuildOptions, OnnxModel, export_onnx
from trt_rt.compiler.cancellation import run_cancellable
from trt_rt.compiler.progress import make_monitor, progress_display
from trt_rt.compiler.tensorrt_builder import run_builder

PROFILES: list[Any] = [{"x": ((1, 4), (3, 4), (16, 4))}]


class Recorder:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def start(self, phase: str, depth: int, steps: int) -> None:
        self.told.append(("start", phase, depth, steps))

    def advance(self, phase: str, steps_done: int) -> None:
        self.told.append(("advance", phase, steps_done))

    def finish(self, phase: str) -> None:
        self.told.append(("finish", phase))


def build_with(display: Any, cancelled: Event, rtx: Backend) -> bytes:
    model = OnnxModel(export_onnx(exported()))
    return run_builder(model, rtx, PROFILES, BuildOptions(), None, display, cancelled).plan


def test_the_builder_reports_phases_one_inside_the_other(rtx: Backend) -> None:
    display = Recorder()
    assert build_with(display, Event(), rtx).startswith(b"vtrt")
    started = [told for told in display.told if told[0] == "start"]
    assert started[0][1:3] == ("Building engine", 0)
    assert {depth for _, _, depth, _ in started} >= {0, 1, 2}
    assert sorted(told[1] for told in started) == sorted(
        told[1] for told in display.told if told[0] == "finish"
    )
    assert ("advance", "Building engine", 1) in display.told


def test_a_cancelled_build_ends_and_the_next_one_works(rtx: Backend) -> None:
    display, cancelled = Recorder(), Event()
    cancelled.set()
    with pytest.raises(CompileError, match=r"(?i)cancel"):
        build_with(display, cancelled, rtx)
    steps = [told for told in display.told if told[0] == "advance"]
    assert len(steps) == 1
    assert build_with(Recorder(), Event(), rtx).startswith(b"vtrt")


def test_a_display_that_fails_does_not_end_the_build(rtx: Backend, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def advance(self, phase: str, steps_done: int) -> None:
            raise ValueError("no such terminal")

    assert build_with(Failing(), Event(), rtx).startswith(b"vtrt")
    assert "progress of the build cannot be shown" in caplog.text


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also in a background job, which inherits that it does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_work_and_is_raised_when_it_has_ended() -> None:
    began, ended, cancelled = Event(), Event(), Event()

    def work() -> None:
        began.set()
        os.kill(os.getpid(), signal.SIGINT)  # to the main thread, which waits
        assert cancelled.wait(SECONDS_UNTIL_DEADLOCK)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work, cancelled)
    assert began.is_set()
    assert ended.is_set()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_real_build(rtx: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = Event()

    class Interrupting(Recorder):
        def start(self, phase: str, depth: int, steps: int) -> None:
            super().start(phase, depth, steps)
            if len(self.told) == 1:
                os.kill(os.getpid(), signal.SIGINT)
                # Until the main thread has it: the build cannot outrun it.
                assert interrupted.wait(SECONDS_UNTIL_DEADLOCK)

    def wait_for(work: Any, cancelled: Event) -> Any:
        monkeypatch.setattr(cancelled, "set", lambda: (Event.set(cancelled), interrupted.set()))
        return run_cancellable(work, cancelled)

    display = Interrupting()
    cancelled = Event()
    with pytest.raises(KeyboardInterrupt):
        wait_for(lambda: build_with(display, cancelled, rtx), cancelled)
    steps = [told for told in display.told if told[0] == "advance"]
    assert len(steps) == 1
    assert build(exported(), backend=rtx).startswith(b"vtrt")


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise CompileError("no")

    cancelled = Event()
    with pytest.raises(CompileError, match="no"):
        run_cancellable(work, cancelled)
    assert not cancelled.is_set()


def test_nothing_is_shown_where_stderr_is_no_terminal(
    rtx: Backend, capfd: pytest.CaptureFixture[str]
) -> None:
    build(exported(), backend=rtx)
    build(exported(), backend=rtx, progress=False)
    assert capfd.readouterr() == ("", "")


def test_bars_are_shown_where_they_are_wanted(rtx: Backend, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich", reason="the package rich is not installed")
    build(exported(), backend=rtx, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Building engine" in err


def test_bars_are_shown_in_a_terminal_and_not_without_rich(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with progress_display(None) as display:
        display.start("a phase", 0, 1)
        display.advance("a phase", 1)
        display.finish("a phase")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CompileError, match="progress=True needs the package rich"), progress_display(True):
        pass


def test_a_tensorrt_without_progress_has_no_monitor() -> None:
    assert make_monitor(object(), Recorder(), Event()) is None
