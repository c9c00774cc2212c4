"""A control that the garbage collector leaves, in the middle of a call or while others change modes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import trt_rt
from tests.behaviours.controls import BY_NAME, controllable, state
from tests.behaviours.garbage_collection import no_garbage_collection
from tests.behaviours.recording import recorded
from tests.factories.case import Case
from tests.patience import SECONDS_UNTIL_DEADLOCK

pytestmark = pytest.mark.behaviour(35)


class _Holder:
    """A generator that is within a control, in a cycle that only the collector frees."""

    def __init__(self, control: Callable[[Any], Any], module: trt_rt.TRTModule) -> None:
        def generate() -> Iterator[None]:
            with control(module):
                yield

        self.generator = generate()
        next(self.generator)
        self.itself = self


def _at_the_next_enqueue(monkeypatch: pytest.MonkeyPatch, calls: Any, job: Callable[[], object]) -> None:
    make = calls.make

    def make_and_act(name: str, method: Any, arguments: tuple[Any, ...]) -> Any:
        if name == "execute_async_v3":
            monkeypatch.setattr(calls, "make", make)
            job()
        return make(name, method, arguments)

    monkeypatch.setattr(calls, "make", make_and_act)


def _call_with(case: Case, module: trt_rt.TRTModule, batch: int) -> None:
    inputs = case.example(batch)
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.fixture(autouse=True)
def _collect_only_when_told() -> Iterator[None]:
    with no_garbage_collection():
        yield


@pytest.mark.parametrize("control", BY_NAME)
def test_a_control_that_is_collected_in_a_call_of_its_module(make, monkeypatch, control):
    """The call is right, and the mode is off when it has ended."""
    case = controllable(make("streaming"))
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    before = state(module)
    holder = _Holder(BY_NAME[control], module)
    _call_with(case, module, 3)
    del holder
    _at_the_next_enqueue(monkeypatch, calls, gc.collect)
    _call_with(case, module, 5)  # a CUDA graph of the other batch would not enqueue
    assert state(module) == before
    _call_with(case, module, 5)


@pytest.mark.parametrize("control", BY_NAME)
def test_a_control_that_is_collected_in_a_call_of_another_module(make, monkeypatch, control):
    """Meanwhile a third thread is in a call of its module, and waits for the collecting one: no deadlock."""
    case = controllable(make("streaming"))
    backend, calls = recorded(case.backend)
    other_backend, other_calls = recorded(case.backend)
    module, other = case.module(backend), case.module(other_backend)
    before = state(module)
    holder = _Holder(BY_NAME[control], module)
    _call_with(case, module, 3)
    in_call, collected = threading.Event(), threading.Event()

    def wait_for_collection() -> None:
        in_call.set()
        assert collected.wait(SECONDS_UNTIL_DEADLOCK), "the finalizer waits for this call"

    def collect() -> None:
        assert in_call.wait(SECONDS_UNTIL_DEADLOCK)
        gc.collect()
        collected.set()

    def call() -> None:
        _call_with(case, module, 5)  # a CUDA graph of the other batch would not enqueue

    _call_with(case, other, 3)
    del holder
    _at_the_next_enqueue(monkeypatch, calls, wait_for_collection)
    _at_the_next_enqueue(monkeypatch, other_calls, collect)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(call)
        _call_with(case, other, 3)
        done.result(SECONDS_UNTIL_DEADLOCK)
    assert state(module) == before
    call()


@pytest.mark.parametrize("control", BY_NAME)
def test_a_control_that_is_collected_while_another_thread_changes_the_engine(make, monkeypatch, control):
    """The change waits for the collecting thread, which is in a call of another module: no deadlock."""
    case = controllable(make("streaming"))
    other_backend, other_calls = recorded(case.backend)
    module, other = case.module(), case.module(other_backend)
    before = state(module)
    holder = _Holder(BY_NAME[control], module)
    for each in (module, other):
        _call_with(case, each, 3)
    del holder
    in_change, collected = threading.Event(), threading.Event()

    def change(_: object) -> None:
        in_change.set()
        assert collected.wait(SECONDS_UNTIL_DEADLOCK), "the finalizer waits for this change"

    def collect() -> None:
        assert in_change.wait(SECONDS_UNTIL_DEADLOCK)
        gc.collect()
        collected.set()

    _at_the_next_enqueue(monkeypatch, other_calls, collect)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(module.engine.run_without_contexts, change)
        _call_with(case, other, 3)
        done.result(SECONDS_UNTIL_DEADLOCK)
    assert state(module) == before
    _call_with(case, module, 3)
