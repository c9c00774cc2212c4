"""Methods whose exceptions nobody raises: an interrupt in one is raised later, and never lost."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest

from tests.behaviours.interrupts import KINDS, Interrupter
from tests.patience import SECONDS_UNTIL_DEADLOCK
from trt_rt._core.callbacks import HandBack, callback, finalizer
from trt_rt.module.layer_profile import new_profiler
from trt_rt.reference import callbacks

pytestmark = pytest.mark.behaviour(34)


class _Interrupted(BaseException):
    pass


class _Receiver:
    error: BaseException | None = None

    @callback(refusal=0, keeps_error=True)
    def address(self, size: int) -> int:
        """Fail for negative sizes."""
        if size < 0:
            raise _Interrupted("kept")
        return size

    @callback(refusal="none")
    def report(self, value: object) -> object:
        """Raise an exception; return anything else."""
        if isinstance(value, BaseException):
            raise value
        return value


def _then_run_python(call: Callable[[], object]) -> None:
    call()
    for _ in range(3):
        pass


def test_an_error_is_kept_for_its_owner():
    receiver = _Receiver()
    assert receiver.address(4) == 4
    assert receiver.address(-1) == 0
    assert str(receiver.error) == "kept"


def test_an_error_is_raised_when_python_runs_again():
    """The very exception, on the main thread."""
    receiver = _Receiver()
    assert receiver.report(1) == 1
    with pytest.raises(_Interrupted, match="later"):
        _then_run_python(partial(receiver.report, _Interrupted("later")))


def test_an_error_on_another_thread_is_raised_there():
    raised = []

    def run() -> None:
        try:
            _then_run_python(partial(_Receiver().report, _Interrupted()))
        except _Interrupted:
            raised.append(threading.current_thread())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(SECONDS_UNTIL_DEADLOCK)
    assert raised == [thread]


def test_the_exit_code_survives():
    """``sys.exit(3)`` in a signal handler that runs within a callback ends the process with 3."""
    code = (
        "from trt_rt._core.callbacks import callback\n"
        "class Receiver:\n"
        "    @callback()\n"
        "    def report(self): raise SystemExit(3)\n"
        "Receiver().report()\n"
        "while True: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=SECONDS_UNTIL_DEADLOCK, check=False)
    assert done.returncode == 3


class _Owner:
    def __init__(self, ended: list[str]) -> None:
        self._ended = ended

    @finalizer
    def __del__(self) -> None:
        if "begun" not in self._ended:
            self._ended.append("begun")
            raise _Interrupted("in a finalizer")
        self._ended.append("ended")


def _make_and_drop(ended: list[str]) -> None:
    _Owner(ended)


def test_a_finalizer_comes_to_its_end():
    """It runs again after an interrupt, which is raised afterwards."""
    ended: list[str] = []
    with pytest.raises(_Interrupted, match="in a finalizer"):
        _then_run_python(partial(_make_and_drop, ended))
    assert ended == ["begun", "ended"]


def test_a_value_is_handed_back():
    values: list[int] = []
    hand_back = HandBack(values, 7)
    assert values == []
    del hand_back
    assert values == [7]
    HandBack.__new__(HandBack)
    gc.collect()
    assert values == [7]


@pytest.mark.parametrize("kind", KINDS)
def test_interrupts_while_a_profiler_is_told(kind):
    """Whatever calls the profiler, it gets no exception, and the thread gets the interrupt."""

    def tried(n: int) -> Interrupter:
        profiler = new_profiler(callbacks, "engine")
        returned = []

        def tell() -> None:
            # From C, as TensorRT does.
            _then_run_python(partial(returned.extend, map(profiler.report_layer_time, ["conv"], [1.0])))

        interrupter = Interrupter(kind, n)
        interrupter.run(tell)
        assert returned == [None], "the exception came out of the callback"
        return interrupter

    count = len(tried(0).counted)
    assert count > 5
    for n in range(1, count + 1):
        assert tried(n).raised, n
