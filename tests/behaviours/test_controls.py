"""Controls find engines anywhere, can be called, restore, and say nothing."""

from __future__ import annotations

import contextlib
import gc
import io
import warnings

import pytest
import torch

from tests.behaviours.controls import BY_NAME, controllable, state
from trt_rt.module.find_engines import find_engines
from trt_rt.runtime import enable_pre_allocated_outputs, use_dynamically_allocated_resources

_every_control = pytest.mark.parametrize("control", BY_NAME.values(), ids=BY_NAME)
_BATCHES = (8, 12, 12, 8, 8)


class _Nested(torch.nn.Module):
    """Engines in a list and in a submodule, called by Python code; to each PyTorch adds one."""

    def __init__(self, first, second):
        super().__init__()
        self.unregistered = [first]
        self.branch = torch.nn.ModuleDict({"leaf": torch.nn.Sequential(second)})

    def forward(self, x):
        return self.branch["leaf"](self.unregistered[0](x) + 1) + 1


def _graph_module(first, second):
    """The same as a torch.fx graph."""
    graph = torch.fx.Graph()
    value = graph.placeholder("x")
    for name in ("first", "second"):
        value = graph.call_function(torch.add, (graph.call_module(name, (value,)), 1))
    graph.output(value)
    return torch.fx.GraphModule(torch.nn.ModuleDict({"first": first, "second": second}), graph)


def _loaded(first, second):
    """The same, saved to a file and read from it."""
    file = io.BytesIO()
    torch.save(_Nested(first, second), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


_PROGRAMS = {"nested": _Nested, "graph_module": _graph_module, "loaded": _loaded}


@pytest.mark.behaviour(29, 30)
@_every_control
@pytest.mark.parametrize("program", _PROGRAMS.values(), ids=_PROGRAMS)
def test_engines_are_found_and_what_as_gives_is_called(make, program, control):
    """In a tree, a graph and a loaded program every engine is switched, and ``as`` gives what to call."""
    case = make("streaming")
    if program is not _loaded:  # a loaded program finds its backend by name
        case = controllable(case)
    elif control is BY_NAME["runtime_config"]:
        pytest.skip("no backend that is found by name has these settings here")
    elif case.factory.path.rpartition(":")[0] != "tests.factories.reference":
        pytest.skip(f"the backend of the plan factory {case.factory.path} may not be found by its name")
    module = program(case.module(), case.module())
    engines = find_engines(module)
    assert len(engines) == 2
    before = [state(engine) for engine in engines]
    with control(module) as called:
        assert all(state(engine) != former for engine, former in zip(engines, before, strict=True))
        for n in _BATCHES:
            (x,) = case.example(n)
            case.assert_right(called(x), (x + 4,))
    assert [state(engine) for engine in engines] == before
    case.assert_right(module(x), (x + 4,))


@pytest.mark.behaviour(31)
@_every_control
def test_an_exception_within(make, control):
    """It arrives as it is, all is as before, and the next call is right."""
    case = controllable(make("streaming"))
    module = case.module()
    before = state(module)
    error, caught = KeyError("of the user"), None
    try:
        with control(module) as called:
            inputs = case.example(8)
            case.assert_right(called(*inputs), case.expected(*inputs))
            raise error
    except KeyError as arrived:
        caught = arrived
    assert caught is error
    assert state(module) == before
    for n in _BATCHES:
        inputs = case.example(n)
        case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(31)
@_every_control
def test_a_call_that_the_engine_refuses_within(make, control):
    """A failing call leaves the control on, and the next call right, within and after."""
    case = controllable(make("streaming"))
    module = case.module()
    with control(module) as called:
        within = state(module)
        for wrong in ((torch.zeros(3, 5, device=case.device),), (), (case.example(3)[0].double(),)):
            with pytest.raises((ValueError, TypeError)):
                called(*wrong)
            assert state(module) == within
            inputs = case.example(8)
            case.assert_right(called(*inputs), case.expected(*inputs))
    case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(31)
@pytest.mark.gpu
@pytest.mark.parametrize("control", [enable_pre_allocated_outputs, use_dynamically_allocated_resources])
def test_memory_on_the_device_is_freed(make, control):
    """As many bytes are allocated after as before."""
    case = make("many")
    module = case.module()
    inputs = [case.example(n) for n in (8, 12)]

    def allocated():
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    def run():
        with contextlib.suppress(KeyError), control(module) as called:
            for tensors in inputs * 2:
                called(*tensors)
            raise KeyError

    run()
    before = allocated()
    for _ in range(5):
        run()
    assert allocated() == before


@pytest.mark.behaviour(32)
@_every_control
def test_nothing_is_said(make, control):
    """Neither entering, nor calling, nor leaving warns."""
    case = controllable(make("streaming"))
    module = case.module()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with control(module) as called:
            for n in _BATCHES:
                called(*case.example(n))
    assert [str(warning.message) for warning in caught] == []
