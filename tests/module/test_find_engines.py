"""find_engines: it looks at what a program is made of, whatever things are called."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import Engine, TRTModule
from trt_rt.module.find_engines import as_module, find_engines


@pytest.fixture
def engine() -> TRTModule:
    return TRTModule(plans.affine())


class Holder(torch.nn.Module):
    """Has something as an attribute of any name."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.something = held


class Relu(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Linear(7, 7)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(torch.relu(x))


def with_engine(graph: torch.fx.Graph, owner: torch.nn.Module, engine: TRTModule) -> None:
    """Let a graph call an engine where it calls relu."""
    owner.add_module("part", engine)
    (node,) = [node for node in graph.nodes if "relu" in str(node.target)]
    with graph.inserting_before(node):
        call = graph.call_module("part", node.args)
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def test_a_module_is_its_own_engine(engine: TRTModule) -> None:
    assert find_engines(engine) == [engine]


@pytest.mark.parametrize(
    "tree",
    [
        lambda engine: torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(engine)),
        lambda engine: torch.nn.ModuleDict({"any name": engine}),
        lambda engine: Holder(engine),
        lambda engine: Holder([torch.nn.ReLU(), engine]),
        lambda engine: Holder((Holder(engine), None)),
        lambda engine: Holder({"a": {"b": engine}}),
        lambda engine: torch.nn.DataParallel(engine),
        lambda engine: torch.compile(Holder(engine), backend="eager"),
        lambda engine: Holder({engine}),
    ],
    ids=["Sequential", "ModuleDict", "attribute", "list", "tuple", "dict", "DataParallel", "compile", "set"],
)
def test_wherever_it_is(engine: TRTModule, tree: Any) -> None:
    assert find_engines(tree(engine)) == [engine]


def test_in_the_order_of_the_tree_and_once() -> None:
    first, second, third = (TRTModule(plans.affine()) for _ in range(3))
    tree = torch.nn.Sequential(first, torch.nn.Sequential(second, first), Holder([third, second]))
    assert find_engines(tree) == [first, second, third]


def test_modules_over_one_engine_are_two() -> None:
    shared = Engine.from_bytes(plans.affine())
    tree = torch.nn.Sequential(TRTModule(shared), TRTModule(shared))
    assert find_engines(tree) == list(tree)


def test_a_tree_that_refers_to_itself(engine: TRTModule) -> None:
    tree = Holder([engine])
    tree.something.append(tree)
    tree.something.append(tree.something)
    assert find_engines(tree) == [engine]


def test_a_subclass_counts() -> None:
    class Special(TRTModule):
        pass

    assert len(find_engines(torch.nn.Sequential(Special(plans.affine())))) == 1


def test_a_graph_module(engine: TRTModule) -> None:
    module = torch.fx.symbolic_trace(Relu())
    with_engine(module.graph, module, engine)
    module.recompile()
    assert find_engines(module) == [engine]
    x = torch.randn(3, 7)
    torch.testing.assert_close(module(x), module.last(engine(x)))


def test_an_exported_program(engine: TRTModule) -> None:
    program = torch.export.export(Relu(), (torch.randn(3, 7),))
    with_engine(program.graph_module.graph, program.graph_module, engine)
    program.graph_module.recompile()
    assert find_engines(program) == [engine]
    assert find_engines(as_module(program)) == [engine]


def test_a_module_that_was_saved_and_loaded(engine: TRTModule) -> None:
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(engine, torch.nn.ReLU()), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    (found,) = find_engines(loaded)
    assert found is loaded[0]


@pytest.mark.parametrize("tree", [torch.nn.Sequential(torch.nn.Linear(2, 2)), Holder([1, "engine", None])])
def test_none_at_all(tree: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=f"no TensorRT engine in this {type(tree).__name__}"):
        find_engines(tree)


@pytest.mark.parametrize("thing", [None, "engine", lambda x: x, [1]])
def test_what_is_no_program(thing: Any) -> None:
    with pytest.raises(TypeError, match=type(thing).__name__):
        find_engines(thing)


class Computed(dict[str, Any]):
    """Computes its items when they are asked for."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("an item was computed")

    __getitem__ = __iter__ = items = keys = values = _refuse


class Endless(list[Any]):
    def __iter__(self) -> Any:
        while True:
            yield torch.nn.Identity()


@pytest.mark.parametrize("lazy", [Computed, Endless])
def test_containers_that_compute_their_items_are_not_asked(engine: TRTModule, lazy: Any) -> None:
    assert find_engines(Holder([lazy(), engine])) == [engine]


def test_what_such_a_container_holds_is_found(engine: TRTModule) -> None:
    assert find_engines(Holder([Computed(first=engine)])) == [engine]
