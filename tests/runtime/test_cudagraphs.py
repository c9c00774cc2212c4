"""enable_cudagraphs: which kind of graph it takes, what it refuses, and what is left when it is over."""

from __future__ import annotations

import contextlib
import gc
import operator
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import trt_rt
from tests.behaviours.recording import recorded
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import ExecutionError, TRTModule
from trt_rt.backend import load
from trt_rt.runtime import (
    WholeGraph,
    enable_cudagraphs,
    get_cudagraphs_mode,
    get_whole_cudagraphs_mode,
    set_cudagraphs_mode,
    set_whole_cudagraphs_mode,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def affine(device: str = "cpu") -> TRTModule:
    return TRTModule(plans.affine(device=device), device=device)


def batch(size: int = 3) -> torch.Tensor:
    return torch.randn(size, 7)


@pytest.fixture
def module() -> TRTModule:
    return affine()


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    yield
    assert not get_cudagraphs_mode()
    assert not get_whole_cudagraphs_mode()


class Tree(torch.nn.Module):
    """Engines one after the other, called by Python code."""

    def __init__(self, *engines: TRTModule, between: Any = None) -> None:
        super().__init__()
        self.engines = torch.nn.ModuleList(engines)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for engine in self.engines:
            x = engine(x)
            if self.between is not None:
                x = self.between(x)
        return x


# ---- which kind


def test_an_engine_has_graphs_of_its_own(module: TRTModule) -> None:
    x = batch()
    with enable_cudagraphs(module) as run:
        assert run is module
        for _ in range(3):
            torch.testing.assert_close(run(x), eager_affine(x))
    assert {name: module.stats()[name] for name in ("calls", "captures", "replays")} == {
        "calls": 3,
        "captures": 1,
        "replays": 2,
    }


def graph_module(*targets: Any) -> torch.fx.GraphModule:
    """A program read from a graph: an engine after each of `targets`, functions or None."""
    root = torch.nn.Module()
    graph = torch.fx.Graph()
    value = graph.placeholder("x")
    for index, target in enumerate(targets):
        if target is not None:
            value = graph.call_function(target, (value,))
        root.add_module(f"engine{index}", affine())
        value = graph.call_module(f"engine{index}", (value,))
    graph.output(value)
    return torch.fx.GraphModule(root, graph)


def test_a_program_that_is_engines_only_has_a_graph_for_each() -> None:
    program = torch.nn.Sequential(graph_module(None, None), torch.nn.Identity(), affine())
    x = batch()
    with enable_cudagraphs(program) as run:
        assert run is program
        for _ in range(3):
            torch.testing.assert_close(run(x), eager_affine(eager_affine(eager_affine(x))))
    assert program[2].stats()["captures"] > 0


@pytest.mark.parametrize(
    "program",
    [
        lambda: torch.nn.Sequential(affine(), torch.nn.ReLU(), affine()),
        lambda: graph_module(None, torch.relu),
        lambda: torch.nn.Sequential(graph_module(torch.relu), affine()),
    ],
    ids=["sequential", "graph", "graph in a sequential"],
)
def test_operators_between_engines_make_one_graph_of_all(program: Any) -> None:
    x = batch().abs()  # relu changes nothing
    made = program()
    with enable_cudagraphs(made) as run:
        assert isinstance(run, WholeGraph)
        for _ in range(3):
            torch.testing.assert_close(run(x), made(x))
        assert run.stats() == {
            "calls": 3,
            "captures": 1,
            "replays": 2,
            "invalidated_captures": 0,
            "graphs": 1,
        }


def test_an_exported_program_is_read(module: TRTModule) -> None:
    class Picks(torch.nn.Module):
        def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return pair[1]

    graph = torch.fx.Graph()
    pair = graph.call_module("two", (graph.placeholder("a"), graph.placeholder("b")))
    graph.output(graph.call_module("engine", (graph.call_function(operator.getitem, (pair, 1)),)))
    root = torch.nn.Module()
    root.two = TRTModule(plans.two())
    root.engine = TRTModule(plans.copy(torch.float32))
    program = torch.fx.GraphModule(root, graph)
    with enable_cudagraphs(program) as run:
        assert run is program

    exported = torch.export.export(
        torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(7, 7)), (batch(),)
    ).module()
    with enable_cudagraphs(torch.nn.Sequential(exported, module)) as run:
        assert isinstance(run, WholeGraph)


@pytest.mark.parametrize(
    ("between", "is_whole"),
    [
        (None, False),
        (lambda x: x.view(1, *x.shape).detach()[0], False),
        (torch.empty_like, False),
        (torch.relu, True),
        (lambda x: x.add_(0), True),
    ],
    ids=["nothing", "views", "an allocation", "relu", "in place"],
)
def test_code_that_cannot_be_read_is_watched_in_its_first_call(between: Any, is_whole: bool) -> None:
    program = Tree(affine(), affine(), between=between)
    x = batch()
    with enable_cudagraphs(program) as run:
        for _ in range(4):
            run(x)
        assert (run.graph_inputs is not None) == is_whole
        replays = sum(engine.stats()["replays"] for engine in program.engines)
        assert (replays > 0) == (not is_whole)
    assert program.engines[0].executors.modes.cuda_graphs is None


def test_a_first_call_that_fails_is_not_what_decides() -> None:
    program = Tree(affine(), between=torch.relu)
    x = batch()
    with enable_cudagraphs(program) as run:
        with pytest.raises(trt_rt.InputError):
            run(x.half())
        for _ in range(3):
            torch.testing.assert_close(run(x), eager_affine(x))
        assert run.graph_inputs is not None


def test_a_first_call_after_the_end_switches_nothing_on() -> None:
    program = Tree(affine())
    with enable_cudagraphs(program) as run:
        pass
    torch.testing.assert_close(run(x := batch()), eager_affine(x))
    torch.testing.assert_close(run(x), eager_affine(x))
    assert program.engines[0].executors.modes.cuda_graphs is None
    assert program.engines[0].stats()["captures"] == 0


def test_the_kind_can_be_forced(module: TRTModule) -> None:
    x = batch()
    with enable_cudagraphs(module, whole_graph=True) as run:
        assert isinstance(run, WholeGraph)
        torch.testing.assert_close((run(x), run(x)), (eager_affine(x), eager_affine(x)))
    program = torch.nn.Sequential(module, torch.nn.ReLU())
    with enable_cudagraphs(program, whole_graph=False) as run:
        assert run is program
        torch.testing.assert_close((run(x), run(x)), (eager_affine(x), eager_affine(x)))


# ---- defaults of the process


def test_the_default_is_for_modules_with_no_setting_of_their_own() -> None:
    before = affine()
    x = batch()
    set_cudagraphs_mode(True)
    try:
        assert get_cudagraphs_mode()
        after = affine()
        with enable_cudagraphs(torch.nn.Sequential(own := affine(), torch.nn.ReLU())):
            for each in (before, after, own):
                torch.testing.assert_close((each(x), each(x)), (eager_affine(x), eager_affine(x)))
                assert each.stats()["replays"] == (0 if each is own else 1)
    finally:
        set_cudagraphs_mode(False)
    torch.testing.assert_close(before(x), eager_affine(x))
    assert before.stats()["replays"] == 1


def test_whole_graphs_by_default(module: TRTModule) -> None:
    set_whole_cudagraphs_mode(True)
    try:
        assert get_whole_cudagraphs_mode()
        with enable_cudagraphs(module) as run:
            assert isinstance(run, WholeGraph)
        with enable_cudagraphs(module, whole_graph=False) as run:
            assert run is module
    finally:
        set_whole_cudagraphs_mode(False)


# ---- refused at entry


def refused(module: torch.nn.Module, match: str, **options: Any) -> None:
    engines = [part for part in module.modules() if isinstance(part, TRTModule)]
    before = [engine.executors.modes for engine in engines]
    with pytest.raises(ValueError, match=match), enable_cudagraphs(module, **options):
        pytest.fail("it was entered")
    assert [engine.executors.modes for engine in engines] == before


def test_a_module_with_no_engine() -> None:
    refused(torch.nn.ReLU(), "no TensorRT engine")


@pytest.mark.parametrize("max_graphs", [0, -1])
def test_a_number_of_graphs_that_makes_no_sense(module: TRTModule, max_graphs: int) -> None:
    refused(module, "from 1 to", max_graphs=max_graphs)


@pytest.mark.parametrize("whole_graph", [True, False, None])
@pytest.mark.parametrize("beside", [[], [affine]], ids=["alone", "beside another"])
def test_outputs_whose_size_depends_on_data(beside: Any, whole_graph: bool | None) -> None:
    engine = TRTModule(plans.nonzero())
    program = torch.nn.Sequential(*[make() for make in beside], engine) if beside else engine
    refused(program, "'output0' depends on data", whole_graph=whole_graph)
    torch.testing.assert_close(engine(x := torch.eye(3, 5))[0], torch.nonzero(x))


@pytest.mark.parametrize("plan", [plans.shape_tensor, plans.profiles, plans.two, plans.constants])
def test_outputs_whose_size_follows_from_the_inputs_are_not_refused(plan: Any) -> None:
    module = TRTModule(plan())
    with enable_cudagraphs(module) as called:
        assert called is module
        assert module.executors.uses_cuda_graphs


def test_outputs_that_tensorrt_was_asked_to_allocate() -> None:
    refused(TRTModule(plans.affine(), requires_output_allocator=True), "enable_output_allocator")


def test_one_graph_of_what_is_one_graph_already(module: TRTModule) -> None:
    with enable_cudagraphs(torch.nn.Sequential(module, torch.nn.ReLU())) as run:
        refused(run, "already")
        torch.testing.assert_close(run(x := batch()), eager_affine(x))


# ---- leaving


@pytest.mark.parametrize("whole_graph", [True, False])
def test_the_earlier_state_is_back(module: TRTModule, whole_graph: bool) -> None:
    x = batch()
    before = module.executors.modes
    with contextlib.suppress(KeyError), enable_cudagraphs(module, whole_graph=whole_graph) as run:
        run(x)
        run(x)
        raise KeyError
    assert module.executors.modes == before
    captures = module.stats()["captures"]
    for _ in range(2):
        torch.testing.assert_close((module(x), run(x)), (eager_affine(x), eager_affine(x)))
    assert module.stats()["captures"] == captures


def test_nested_in_itself(module: TRTModule) -> None:
    x = batch()
    with enable_cudagraphs(module, max_graphs=5):
        with enable_cudagraphs(module, max_graphs=2), enable_cudagraphs(module, whole_graph=True) as run:
            torch.testing.assert_close((run(x), run(x)), (eager_affine(x), eager_affine(x)))
            assert module.executors.modes.cuda_graphs is False
        assert (module.executors.modes.cuda_graphs, module.executors.modes.max_graphs) == (True, 5)
        torch.testing.assert_close((module(x), module(x)), (eager_affine(x), eager_affine(x)))


@pytest.mark.gpu
@pytest.mark.parametrize("whole_graph", [True, False])
def test_no_gpu_memory_is_left(whole_graph: bool) -> None:
    program = torch.nn.Sequential(affine("cuda"), torch.nn.ReLU())
    inputs = [torch.randn(size, 7, device="cuda") for size in range(1, 17)]
    # Cases differ by what PyTorch, and cuBLAS, keep after their first use.
    with enable_cudagraphs(program, whole_graph=whole_graph) as run:
        for x in inputs:
            run(x)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        with enable_cudagraphs(program, whole_graph=whole_graph) as run:
            for x in inputs * 2:
                torch.testing.assert_close(run(x), eager_affine(x))
        del run
    gc.collect()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before


# ---- what goes wrong within


@pytest.mark.parametrize("whole_graph", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_an_engine_that_refuses_to_run(whole_graph: bool, device: str) -> None:
    backend, calls = recorded(load("reference"))
    module = TRTModule(plans.affine(device=device), backend=backend, device=device)
    program = torch.nn.Sequential(module, torch.nn.ReLU())
    x, other = batch().to(device), batch(5).to(device)
    with enable_cudagraphs(program, whole_graph=whole_graph) as run:
        torch.testing.assert_close(run(x), eager_affine(x))
        with calls.failing("execute_async_v3"), pytest.raises(ExecutionError, match="execute_async_v3"):
            run(other)
        for _ in range(2):
            torch.testing.assert_close((run(x), run(other)), (eager_affine(x), eager_affine(other)))
    torch.testing.assert_close(module(x), eager_affine(x))


@pytest.mark.gpu
@pytest.mark.parametrize("whole_graph", [True, False])
def test_an_engine_that_refuses_to_be_captured(whole_graph: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, calls = recorded(load("reference"))
    make = calls.make

    def refuse_captures(name: str, method: Any, arguments: tuple[Any, ...]) -> Any:
        if name == "execute_async_v3":
            stream = torch.cuda.ExternalStream(arguments[0])
            with torch.cuda.stream(stream):
                if torch.cuda.is_current_stream_capturing():
                    return False
        return make(name, method, arguments)

    module = TRTModule(plans.affine(device="cuda"), backend=backend, device="cuda")
    program = torch.nn.Sequential(module, torch.nn.ReLU())
    x = batch().cuda()
    with enable_cudagraphs(program, whole_graph=whole_graph) as run:
        monkeypatch.setattr(calls, "make", refuse_captures)
        for _ in range(2):
            with pytest.raises(ExecutionError, match="execute_async_v3"):
                run(x)
        monkeypatch.undo()
        for _ in range(3):
            torch.testing.assert_close(run(x), eager_affine(x))
    for _ in range(2):
        torch.testing.assert_close(module(x), eager_affine(x))


@pytest.mark.gpu
def test_a_program_that_cannot_be_captured() -> None:
    class Synchronises(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.engine = affine("cuda")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.engine(x)
            return y * 2 if y.sum().item() > 0 else y

    program = Synchronises()
    x = batch().cuda()
    with enable_cudagraphs(program, whole_graph=True) as run:
        for _ in range(2):
            with pytest.raises(ExecutionError, match="whole_graph=False"):
                run(x)
    with enable_cudagraphs(program, whole_graph=False) as run:
        for _ in range(3):
            torch.testing.assert_close(run(x), eager_affine(x) * 2)


def no_memory(*args: Any, **kwargs: Any) -> Any:
    raise torch.OutOfMemoryError("a test took all memory")


@pytest.mark.parametrize("whole_graph", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_no_memory_for_a_graph(whole_graph: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = torch.nn.Sequential(affine(device), torch.nn.ReLU())
    x, other = batch().to(device), batch(5).to(device)
    with enable_cudagraphs(program, whole_graph=whole_graph) as run:
        torch.testing.assert_close(run(x), eager_affine(x))
        with monkeypatch.context() as patch:
            if whole_graph:
                patch.setattr(torch, "empty_like", no_memory)
            else:
                patch.setattr("trt_rt.engine.contexts.shared_workspace", no_memory)
            with pytest.raises(torch.OutOfMemoryError):
                run(other)
        for _ in range(2):
            torch.testing.assert_close((run(x), run(other)), (eager_affine(x), eager_affine(other)))


@pytest.mark.gpu
def test_no_memory_while_a_program_is_captured() -> None:
    class Hungry(torch.nn.Module):
        hungry = True

        def __init__(self) -> None:
            super().__init__()
            self.engine = affine("cuda")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.hungry and torch.cuda.is_current_stream_capturing():
                torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
            return torch.relu(self.engine(x))

    program = Hungry()
    x = batch().cuda()
    with enable_cudagraphs(program) as run:
        run(x)  # is watched only
        with pytest.raises(torch.OutOfMemoryError):
            run(x)
        program.hungry = False
        for _ in range(3):
            torch.testing.assert_close(run(x), eager_affine(x))


def test_stats_count_what_an_executor_did_before_it_was_taken(module: TRTModule) -> None:
    x = batch()
    module(x)
    assert module.executors.take() is not None
    assert module.stats()["calls"] == 1
    module(x)
    assert (module.stats()["calls"], module.stats()["contexts"]) == (2, 1)
    assert module.executors.take() is not None
    assert module.executors.take() is None
