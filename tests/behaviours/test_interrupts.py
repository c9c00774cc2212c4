"""Ctrl-C between any two bytecodes leaves a module usable by every thread, with the modes that it had."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

import trt_rt
from tests.behaviours.controls import BY_NAME, controllable, state
from tests.behaviours.garbage_collection import no_garbage_collection
from tests.behaviours.graph_modes import Doubled
from tests.behaviours.interrupts import KINDS, Interrupter, spread
from tests.behaviours.other_thread import on_another_thread
from tests.factories.case import Case
from trt_rt import runtime

pytestmark = pytest.mark.behaviour(34)


class Subject:
    """A module that is interrupted, and what it must still do afterwards.

    Attributes
    ----------
    case : Case
        What made its engine.
    module : TRTModule
        The module, over an engine of its own.
    inputs : tuple of torch.Tensor
        Of a call.
    run : callable
        What a scenario calls; the module, unless the scenario has made something else of it.
    leave : callable
        Ends what the scenario has begun.
    """

    def __init__(self, case: Case, engine: trt_rt.Engine) -> None:
        self.case = case
        self.new_engine = case.engine
        self.module = trt_rt.TRTModule(engine, max_contexts=4)
        self.inputs = case.example(3)
        self._expected = case.expected(*self.inputs)
        self.factor = 1
        self.run: Callable[..., Any] = self.module
        self.leave: Callable[[], object] = lambda: None

    def check(self, call: Callable[..., Any] | None = None) -> None:
        """Call, and compare."""
        factor = self.factor if call is self.run else 1
        expected = tuple(output * factor for output in self._expected)
        self.case.assert_right((call or self.module)(*self.inputs), expected)

    def check_everything(self) -> None:
        """Call, and switch modes; on any thread."""
        for call in (self.run, self.module):
            self.check(call)
        self.module.set_pre_allocated_outputs(True)
        self.check()
        self.module.set_pre_allocated_outputs(False)
        self.check()
        with runtime.use_dynamically_allocated_resources(self.module):
            self.check()
        if self.case.kind == "streaming":
            with runtime.weight_streaming(self.module) as streaming:
                streaming.device_budget = 1
                self.check()
        self.check()


Scenario = Callable[[Subject], Callable[[], object]]

_SCENARIOS: dict[str, tuple[str, Scenario]] = {}


def _scenario(kind: str) -> Callable[[Scenario], Scenario]:
    """Register a function that prepares a subject of a kind and returns the code to interrupt."""

    def register(prepare: Scenario) -> Scenario:
        _SCENARIOS[prepare.__name__.strip("_")] = (kind, prepare)
        return prepare

    return register


@_scenario("two")
def _first_call(subject: Subject) -> Callable[[], object]:
    return subject.check


@_scenario("two")
def _first_call_of_a_lazy_module(subject: Subject) -> Callable[[], object]:
    case = subject.case
    lazy = {"lazy_engine_init": True}
    module = trt_rt.TRTModule(case.plan, settings=lazy, backend=case.backend_argument, device=case.device)
    subject.run = module
    return functools.partial(subject.check, module)


@_scenario("two")
def _call(subject: Subject) -> Callable[[], object]:
    subject.check()
    return subject.check


@_scenario("two")
def _call_of_another_shape(subject: Subject) -> Callable[[], object]:
    subject.check()
    other = tuple(torch.cat([tensor, tensor]) for tensor in subject.inputs)
    return lambda: subject.module(*other)


@_scenario("two")
def _careful_call(subject: Subject) -> Callable[[], object]:
    subject.check()
    strided = tuple(tensor.T.contiguous().T for tensor in subject.inputs)
    return lambda: subject.module(*strided)


@_scenario("two")
def _new_executor(subject: Subject) -> Callable[[], object]:
    on_another_thread(subject.check)
    return subject.check


@_scenario("nonzero")
def _data_dependent_call(subject: Subject) -> Callable[[], object]:
    subject.check()
    return subject.check


@_scenario("two")
def _out(subject: Subject) -> Callable[[], object]:
    out = tuple(torch.empty_like(tensor) for tensor in subject.inputs)
    return lambda: subject.module(*subject.inputs, out=out)


@_scenario("two")
def _bind(subject: Subject) -> Callable[[], object]:
    subject.check()
    return lambda: subject.module.bind(*subject.inputs)()


@_scenario("two")
def _bound_call(subject: Subject) -> Callable[[], object]:
    bound = subject.module.bind(*subject.inputs)
    subject.check()
    subject.run = lambda *inputs: bound()
    return bound


@_scenario("two")
def _set_pre_allocated_outputs(subject: Subject) -> Callable[[], object]:
    subject.check()

    def switch() -> None:
        try:
            subject.module.set_pre_allocated_outputs(True)
            subject.check()
        finally:
            subject.module.set_pre_allocated_outputs(False)

    return switch


@_scenario("streaming")
def _end_of_the_output_allocator(subject: Subject) -> Callable[[], object]:
    # Its own scenario, so that the few bytecodes that unset an allocator are among those that are tried.
    context = runtime.enable_output_allocator(subject.module)
    context.__enter__()
    subject.check()
    return functools.partial(context.__exit__, None, None, None)


def _entered(control: Callable[[Any], AbstractContextManager[Any]]) -> Scenario:
    def prepare(subject: Subject) -> Callable[[], object]:
        subject.check()

        def enter_and_leave() -> None:
            with control(subject.module) as run:
                subject.check(run)

        return enter_and_leave

    return prepare


_SCENARIOS.update({name: ("streaming", _entered(control)) for name, control in BY_NAME.items()})
_SCENARIOS["optimization_profile"] = ("profiles", _entered(BY_NAME["optimization_profile"]))


@_scenario("two")
def _set_multi_device_safe_mode(subject: Subject) -> Callable[[], object]:
    # The mode is on from the call on, so that an interrupt between the call and ``with`` leaves it on.
    def enter_and_leave() -> None:
        try:
            with runtime.set_multi_device_safe_mode(True):
                subject.check()
        finally:
            runtime.set_multi_device_safe_mode(False)

    return enter_and_leave


@_scenario("two")
def _set_cudagraphs_mode(subject: Subject) -> Callable[[], object]:
    def switch() -> None:
        try:
            runtime.set_cudagraphs_mode(True)
            subject.check()
        finally:
            runtime.set_cudagraphs_mode(False)

    return switch


@_scenario("two")
def _capture_of_an_engine(subject: Subject) -> Callable[[], object]:
    _enter_graphs(subject, subject.module, whole=False)
    return functools.partial(subject.check, subject.run)


@_scenario("two")
def _replay_of_an_engine(subject: Subject) -> Callable[[], object]:
    _enter_graphs(subject, subject.module, whole=False)
    subject.check(subject.run)
    return functools.partial(subject.check, subject.run)


@_scenario("two")
def _program(subject: Subject) -> Callable[[], object]:
    def enter_and_leave() -> None:
        with runtime.enable_cudagraphs(Doubled(subject.module), whole_graph=True) as run:
            run(*subject.inputs)
            run(*subject.inputs)

    return enter_and_leave


@_scenario("two")
def _capture_of_a_program(subject: Subject) -> Callable[[], object]:
    _enter_graphs(subject, Doubled(subject.module), whole=True)
    return functools.partial(subject.check, subject.run)


@_scenario("two")
def _replay_of_a_program(subject: Subject) -> Callable[[], object]:
    _enter_graphs(subject, Doubled(subject.module), whole=True)
    subject.check(subject.run)
    return functools.partial(subject.check, subject.run)


@_scenario("two")
def _first_call_of_an_unknown_program(subject: Subject) -> Callable[[], object]:
    _enter_graphs(subject, Doubled(subject.module), whole=None)
    return functools.partial(subject.check, subject.run)


def _enter_graphs(subject: Subject, program: torch.nn.Module, *, whole: bool | None) -> None:
    context = runtime.enable_cudagraphs(program, whole_graph=whole)
    subject.run = context.__enter__()
    subject.factor = 1 if program is subject.module else 2
    subject.leave = functools.partial(context.__exit__, None, None, None)


@_scenario("streaming")
def _budget(subject: Subject) -> Callable[[], object]:
    streaming = runtime.weight_streaming(subject.module)
    subject.check()

    def change() -> None:
        streaming.device_budget = 4096

    def leave() -> None:
        assert streaming.device_budget in (4096, streaming.total_device_budget)
        streaming.device_budget = streaming.total_device_budget

    subject.leave = leave
    return change


@_scenario("two")
def _close(subject: Subject) -> Callable[[], object]:
    subject.check()
    module = trt_rt.TRTModule(subject.new_engine())
    module(*subject.inputs)

    def leave() -> None:
        try:
            subject.check(module)
        except trt_rt.ClosedError:
            assert module.engine.closed
        module.engine.close()
        assert module.engine.closed
        with pytest.raises(trt_rt.ClosedError):
            module(*subject.inputs)

    subject.leave = leave
    return module.engine.close


@_scenario("two")
def _new_module(subject: Subject) -> Callable[[], object]:
    return lambda: trt_rt.TRTModule(subject.module.engine)(*subject.inputs)


def _check_after(subject: Subject, before: list[Any]) -> None:
    on_another_thread(subject.check_everything)
    subject.check(subject.run)
    subject.leave()
    assert state(subject.module) == before, "modes differ"
    subject.check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", _SCENARIOS)
def test_an_interrupt_leaves_the_module_usable(make, scenario, kind):
    """Whatever runs when Ctrl-C comes, calls and changes of modes work afterwards, on every thread."""
    engine_kind, prepare = _SCENARIOS[scenario]
    case = make(engine_kind)
    if scenario in BY_NAME:
        case = controllable(case)
    engine = case.engine()

    def tried(n: int) -> tuple[Interrupter, str]:
        nonlocal engine
        subject = Subject(case, engine)
        before = state(subject.module)
        code = prepare(subject)
        interrupter = Interrupter(kind, n)
        interrupter.run(code)
        try:
            assert interrupter.raised == interrupter.fired, "the interrupt is lost"
            _check_after(subject, before)
        except BaseException as error:
            engine = case.engine()
            return interrupter, f"{n}: {interrupter.place}: {type(error).__name__}: {str(error)[:150]}"
        return interrupter, ""

    # What is collected depends on what ran before, and would make the bytecodes of two runs differ.
    with no_garbage_collection():
        results = [tried(n) for n in spread(tried(0)[0].counted)]
    failures = [failure for _, failure in results if failure]
    count = sum(interrupter.fired for interrupter, _ in results)
    print(f"{scenario}, {kind}: {len(failures)} of {count} interrupts left something behind")
    assert not failures, f"{len(failures)} of {count} interrupts:\n" + "\n".join(failures[:60])
