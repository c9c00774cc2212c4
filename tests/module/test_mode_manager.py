"""What all controls over modes have in common: entering, leaving, and what goes wrong in between."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.behaviours.controls import BY_NAME, OVER_MODES
from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, TRTModule
from trt_rt.module.modes import Modes
from trt_rt.runtime import enable_pre_allocated_outputs, optimization_profile

every_control = pytest.mark.parametrize("control", [BY_NAME[name] for name in OVER_MODES], ids=OVER_MODES)


def check(*called: Any, of: Any = eager_affine) -> None:
    for batch in (3, 5, 5, 3):
        x = torch.randn(batch, 7)
        for call in called:
            torch.testing.assert_close(call(x), of(x))


@every_control
def test_it_is_on_within_and_off_after(module: TRTModule, control: Any) -> None:
    context = control(module)
    assert module.executors.modes == Modes()
    with context as called:
        assert module.executors.modes != Modes()
        check(called, module)
    assert module.executors.modes == Modes()
    check(called, module)


@every_control
def test_it_can_be_entered_again(module: TRTModule, control: Any) -> None:
    context = control(module)
    for _ in range(3):
        with context as called:
            assert module.executors.modes != Modes()
            check(called)
        assert module.executors.modes == Modes()


@every_control
def test_it_cannot_be_entered_twice(module: TRTModule, control: Any) -> None:
    context = control(module)
    with context as called:
        within = module.executors.modes
        with pytest.raises(RuntimeError, match="entered already"), context:
            pass
        assert module.executors.modes == within
        check(called)
    assert module.executors.modes == Modes()


@every_control
def test_it_cannot_be_left_unentered(module: TRTModule, control: Any) -> None:
    context = control(module)
    with pytest.raises(RuntimeError, match="without having been entered"):
        context.__exit__(None, None, None)
    check(module)


@every_control
def test_an_exception_passes_through(module: TRTModule, control: Any) -> None:
    with pytest.raises(KeyError, match="mine"), control(module):
        raise KeyError("mine")
    assert module.executors.modes == Modes()
    check(module)


@every_control
def test_a_call_that_fails_within(module: TRTModule, control: Any) -> None:
    with control(module) as called:
        for wrong in (torch.randn(3, 8), torch.randn(1000, 7), torch.randn(3, 7).double()):
            with pytest.raises((ValueError, TypeError), match="'x'"):
                called(wrong)
            check(called, module)
    check(module)


@every_control
def test_every_engine_of_a_tree(control: Any) -> None:
    tree = torch.nn.Sequential(TRTModule(plans.affine()), torch.nn.Sequential(TRTModule(plans.affine())))
    with control(tree) as called:
        modes = [tree[0].executors.modes, tree[1][0].executors.modes]
        assert Modes() not in modes
        check(called, of=lambda x: eager_affine(eager_affine(x)))
    assert [tree[0].executors.modes, tree[1][0].executors.modes] == [Modes(), Modes()]
    check(tree, of=lambda x: eager_affine(eager_affine(x)))


@every_control
def test_modules_over_one_engine_have_modes_of_their_own(control: Any) -> None:
    shared = Engine.from_bytes(plans.affine())
    first, second = TRTModule(shared), TRTModule(shared)
    with control(first) as called:
        assert second.executors.modes == Modes()
        check(called, second)


@every_control
def test_an_exported_program(control: Any) -> None:
    program = torch.export.export(torch.nn.Identity(), (torch.randn(3, 7),), strict=False)
    engine = TRTModule(plans.affine())
    program.graph_module.add_module("engine", engine)
    graph = program.graph_module.graph
    output = graph.output_node()
    (value,) = output.args[0]
    with graph.inserting_before(output):
        call = graph.call_module("engine", (value,))
    call.meta = dict(value.meta)
    output.args = ((call,),)
    program.graph_module.recompile()
    x = torch.randn(3, 7)
    with control(program) as called:
        assert engine.executors.modes != Modes()
        torch.testing.assert_close(called(x), eager_affine(x))
    assert engine.executors.modes == Modes()


@every_control
def test_a_module_with_no_engine(control: Any) -> None:
    with pytest.raises(ValueError, match="no TensorRT engine"):
        control(torch.nn.Linear(2, 2))


@every_control
def test_what_is_no_module(control: Any) -> None:
    with pytest.raises(TypeError, match="not str"):
        control("module")


@every_control
def test_an_engine_that_is_closed_within(control: Any) -> None:
    tree = torch.nn.Sequential(TRTModule(plans.affine()), TRTModule(plans.affine()))
    with control(tree):
        check(tree, of=lambda x: eager_affine(eager_affine(x)))
        tree[0].engine.close()
    assert tree[1].executors.modes == Modes()
    check(tree[1])


@every_control
def test_a_copy_made_within_has_modes_of_its_own(module: TRTModule, control: Any) -> None:
    with control(module):
        copied = copy.deepcopy(module)
        assert copied.executors.modes == Modes()
    check(copied, module)


@every_control
def test_a_module_is_collected_after_and_within(control: Any) -> None:
    module = TRTModule(plans.affine())
    collected = weakref.ref(module)
    context = control(module)
    with context as called:
        check(called)
    context.__enter__()  # and never left
    del module, context, called
    gc.collect()
    assert collected() is None


def test_a_failure_half_way_leaves_no_engine_changed(module: TRTModule) -> None:
    """The second engine has no profile 1: the first goes on as before."""
    first = TRTModule(plans.profiles())
    with pytest.raises(ValueError, match="profile 0 only"), optimization_profile(Pair(first, module), 1):
        pass
    assert first.executors.modes == module.executors.modes == Modes()


def test_changing_an_engine_that_fails(module: TRTModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a change is refused half-way, engines that have changed change back."""
    first = TRTModule(plans.affine())
    override = type(module.executors).override

    def refuse(executors: Any, owner: object, modes: Any) -> None:
        if executors is module.executors:
            raise MemoryError("no room")
        override(executors, owner, modes)

    context = enable_pre_allocated_outputs(Pair(first, module))
    with monkeypatch.context() as patch:
        patch.setattr(type(module.executors), "override", refuse)
        with pytest.raises(MemoryError, match="no room"), context:
            pass
    assert first.executors.modes == module.executors.modes == Modes()
    with context:
        assert module.executors.modes != Modes()
    assert first.executors.modes == module.executors.modes == Modes()


class Pair(torch.nn.Module):
    def __init__(self, first: TRTModule, second: TRTModule) -> None:
        super().__init__()
        self.first, self.second = first, second


def test_of_several_the_last_one_counts(module: TRTModule) -> None:
    contexts = [enable_pre_allocated_outputs(module, buffers) for buffers in (1, 2, 3)]

    def buffers() -> int:
        return module.executors.modes.pre_allocated_outputs

    for number, context in enumerate(contexts, 1):
        context.__enter__()
        assert buffers() == number
    for leaving, left in ((contexts[1], 3), (contexts[2], 1), (contexts[0], 0)):
        leaving.__exit__(None, None, None)
        assert buffers() == left


def test_a_mode_that_was_set_before_is_back(module: TRTModule) -> None:
    module.set_pre_allocated_outputs(True, buffers=5)
    with enable_pre_allocated_outputs(module, 2):
        assert module.executors.modes.pre_allocated_outputs == 2
        module.set_pre_allocated_outputs(False)
    assert module.executors.modes.pre_allocated_outputs == 5


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for thread in started:
        thread.join(SECONDS_UNTIL_DEADLOCK)
        assert not thread.is_alive()


def test_threads_enter_and_leave_while_others_call(
    module: TRTModule, threads: list[threading.Thread]
) -> None:
    """Contexts that overlap anyhow leave nothing behind, and every call meanwhile is right."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                if number % 2:
                    check(module)
                else:
                    # Not with reused outputs: other threads' results would be overwritten.
                    with BY_NAME[OVER_MODES[1 + number // 2 % (len(OVER_MODES) - 1)]](module) as called:
                        check(called)
        except BaseException as error:
            errors.append(error)

    threads += [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_UNTIL_DEADLOCK)
    assert errors == []
    assert module.executors.modes == Modes()
