"""Modules in graphs that PyTorch traces: the engine becomes an operator."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.export import Dim

from tests.reference import plans
from trt_rt import BackendError, Engine, TRTModule, reference, refit
from trt_rt.backend import Backend
from trt_rt.errors import InputValueError
from trt_rt.operator import OPERATOR, EngineMeta

BATCH = Dim("batch", min=2, max=32)


class Model(torch.nn.Module):
    """An engine between two PyTorch operators."""

    def __init__(self, plan: bytes, **options: Any) -> None:
        super().__init__()
        self.engine = TRTModule(plan, device="cpu", **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.engine(x * 2) + 1
        return result


def affine_model() -> Model:
    return Model(plans.affine())


def right(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = plans.eager_affine(x * 2) + 1
    return result


def metas(graph: torch.fx.Graph) -> list[EngineMeta]:
    return [EngineMeta.parse(node.args[2]) for node in graph.nodes if node.target is OPERATOR]


def kept(graphs: list[torch.fx.GraphModule]) -> Callable[..., Any]:
    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return backend


@pytest.fixture(autouse=True)
def _no_compiled_code() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_a_symbolic_trace() -> None:
    graph = torch.fx.symbolic_trace(affine_model())
    assert [node.op for node in graph.graph.nodes if node.op != "get_attr"] == [
        "placeholder",
        "call_function",
        "call_function",
        "call_function",
        "call_function",
        "output",
    ]
    for batch in (2, 5):
        x = torch.randn(batch, 7)
        torch.testing.assert_close(graph(x), right(x))


def test_a_symbolic_trace_with_the_module_as_a_leaf() -> None:
    class Leaves(torch.fx.Tracer):
        def is_leaf_module(self, module: torch.nn.Module, name: str) -> bool:
            return isinstance(module, TRTModule) or super().is_leaf_module(module, name)

    model = affine_model()
    graph = Leaves().trace(model)
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["engine"]
    x = torch.randn(3, 7)
    torch.testing.assert_close(torch.fx.GraphModule(model, graph)(x), right(x))


@pytest.mark.parametrize("strict", [False, True])
def test_an_export(strict: bool) -> None:
    program = torch.export.export(
        affine_model(), (torch.randn(3, 7),), dynamic_shapes=({0: BATCH},), strict=strict
    )
    (meta,) = metas(program.graph)
    assert meta.module is None
    assert meta.sha256 == hashlib.sha256(plans.affine()).hexdigest()
    for batch in (2, 5):
        x = torch.randn(batch, 7)
        torch.testing.assert_close(program.module()(x), right(x))


def test_hooks_are_exported_too() -> None:
    model = affine_model()
    model.engine.register_forward_hook(lambda module, args, result: result * 3)
    x = torch.randn(3, 7)
    wanted = plans.eager_affine(x * 2) * 3 + 1
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), wanted)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), wanted)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), wanted)


class State(torch.nn.Module):
    """An engine that writes into a buffer of the model."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.engine = TRTModule(plans.accumulate(), **options)
        self.register_buffer("cache", torch.zeros(8, 4))

    def forward(self, x: torch.Tensor) -> Any:
        return self.engine(self.cache, x)


# PyTorch's own, of run_decompositions.
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("aliased_outputs", ["omit", "return"])
@pytest.mark.parametrize("way", ["export", "decomposed", "compile"])
def test_state_that_an_engine_writes(way: str, aliased_outputs: str) -> None:
    model = State(aliased_outputs=aliased_outputs)
    x = torch.randn(8, 4)
    traced: Any
    if way == "compile":
        traced = owner = torch.compile(model, backend="aot_eager", fullgraph=True)
    else:
        program = torch.export.export(model, (x,))
        traced = owner = (program if way == "export" else program.run_decompositions({})).module()
    for calls in (1, 2):
        result = traced(x)
        if aliased_outputs == "return":
            torch.testing.assert_close(result[model.engine.in_graphs.sources.index(0)], x * calls)
            result = result[model.engine.in_graphs.sources.index(None)]
        torch.testing.assert_close(result, x * 2)
        torch.testing.assert_close(owner.cache, x * calls)


def test_keyword_inputs() -> None:
    engine = TRTModule(plans.two(), device="cpu")

    class Keywords(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.engine = engine

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> Any:
            return self.engine(b=b, a=a)

    a, b = torch.randn(2, 3, 3)
    for traced in (
        torch.export.export(Keywords(), (a, b)).module(),
        torch.compile(Keywords(), backend="eager", fullgraph=True),
        torch.fx.symbolic_trace(Keywords()),
    ):
        torch.testing.assert_close(traced(a, b), (a + b, b + 1))


def test_out_is_refused() -> None:
    class Out(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.engine = TRTModule(plans.affine(), device="cpu")

        def forward(self, x: torch.Tensor) -> Any:
            return self.engine(x, out=torch.empty(3, 7))

    with pytest.raises(InputValueError, match="out= is not possible"):
        torch.export.export(Out(), (torch.randn(3, 7),))


def test_compiled_calls_run_the_module_itself() -> None:
    """Every control of the module works on them, and the engine is not loaded again."""
    graphs: list[torch.fx.GraphModule] = []
    model = affine_model()
    compiled = torch.compile(model, backend=kept(graphs), fullgraph=True)
    x = torch.randn(3, 7)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), right(x))
    (meta,) = metas(graphs[0].graph)
    assert meta.module is not None
    assert model.engine.stats()["calls"] == 3


def test_a_compiled_graph_outlives_its_module() -> None:
    graphs: list[torch.fx.GraphModule] = []
    model = affine_model()
    x = torch.randn(3, 7)
    torch.compile(model, backend=kept(graphs), fullgraph=True)(x)
    graph = graphs.pop()
    arguments = [
        x if node.meta["example_value"].dtype is torch.float32 else model.engine.in_graphs.plan
        for node in graph.graph.nodes
        if node.op == "placeholder"
    ]
    del model
    torch._dynamo.reset()
    torch.testing.assert_close(graph(*arguments)[0], right(x))


def test_copies_are_modules_of_their_own() -> None:
    model = affine_model()
    first = model.engine.in_graphs.identity
    assert copy.deepcopy(model).engine.in_graphs.identity != first
    assert copy.copy(model.engine).in_graphs.identity != first


def test_a_plan_is_that_of_the_weights_of_now() -> None:
    network = torch.nn.Linear(3, 2).eval()
    x = torch.randn(4, 3)
    module = TRTModule(reference.build(network, (x,), refittable=True), device="cpu")
    before = torch.export.export(module, (x,))
    wanted_before = network(x)
    again = torch.export.export(module, (x,))
    with torch.no_grad():
        network.weight.add_(1)
    refit(module, network.state_dict())
    after = torch.export.export(module, (x,))
    assert metas(before.graph) == metas(again.graph) != metas(after.graph)
    torch.testing.assert_close(before.module()(x), wanted_before)
    torch.testing.assert_close(after.module()(x), network(x))


def test_a_backend_without_a_name_cannot_be_saved() -> None:
    backend = Backend("mine", reference, runs_on_cpu=True)
    model = Model(plans.affine(), backend=backend)
    x = torch.randn(3, 7)
    with pytest.raises(BackendError, match="'mine', which only this process knows"):
        torch.export.export(model, (x,))
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), right(x))


class Sizes(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.cat([x, x, y]),
            x.flatten(),
            y[::2],
            y.repeat(3, 1)[1:],
            x.nonzero(),
            x[:2],
        )


def shapes_of(plan: bytes) -> list[tuple[int | str, ...]]:
    module = TRTModule(plan, device="cpu")
    module.in_graphs.update()
    return [each.shape for each in EngineMeta.parse(module.in_graphs.meta(is_saved=True)).outputs]


def test_sizes_of_outputs_are_found() -> None:
    plan = reference.build(
        Sizes(),
        (torch.ones(4, 5), torch.ones(6, 5)),
        dynamic_shapes=(
            {0: Dim("a", min=2, max=50), 1: Dim("c", min=3, max=9)},
            {0: Dim("b", min=4, max=60), 1: Dim("c", min=3, max=9)},
        ),
    )
    assert shapes_of(plan) == [
        ("2*s0 + s2", "s1"),
        ("s0*s1",),
        ("(s2 + 1)//2", "s1"),
        ("3*s2 + -1", "s1"),
        ("?u0", 2),
        (2, "s1"),
    ]


def test_sizes_that_depend_on_the_values_of_a_shape_tensor() -> None:
    assert shapes_of(plans.shape_tensor()) == [("?u0",)]


def test_engines_of_two_profiles() -> None:
    assert shapes_of(plans.profiles()) == [("s0", 7)]


def test_an_engine_that_was_closed() -> None:
    model = affine_model()
    model.engine.engine.close()
    with pytest.raises(Exception, match="closed"):
        torch.export.export(model, (torch.randn(3, 7),))


def test_two_modules_over_one_engine() -> None:
    engine = Engine.from_bytes(plans.affine())
    model = torch.nn.Sequential(TRTModule(engine), TRTModule(engine))
    x = torch.randn(3, 7)
    program = torch.export.export(model, (x,))
    first, second = metas(program.graph)
    assert first == second
    torch.testing.assert_close(program.module()(x), plans.eager_affine(plans.eager_affine(x)))
