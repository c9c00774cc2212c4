"""`Engine.output_shapes`: the shapes that a call returns, None for what depends on data; nothing runs."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from tests.patience import SECONDS_UNTIL_DEADLOCK
from tests.quirky_tensorrt import Quirk, quirky_backend
from tests.reference import plans
from trt_rt import BackendError, ClosedError, Engine, InputError, TRTModule
from trt_rt.backend import load

_KINDS = [
    "relu",
    "half",
    "two",
    "many",
    "nonzero",
    "shape_tensor",
    "shape_tensor32",
    "streaming",
    "aliased",
    "profiles",
    "empty",
    "scalar",
    "static",
    "no_inputs",
    "no_outputs",
    "huge",
    "names",
]


def asked(engine: Engine, inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of `Engine.output_shapes` for these inputs of a call."""
    named = dict(zip(engine.inputs, inputs, strict=True))
    shapes = {io.name: tuple(tensor.shape) for io, tensor in named.items() if not io.is_shape_tensor}
    values = {io.name: tensor.flatten().tolist() for io, tensor in named.items() if io.is_shape_tensor}
    return shapes, values


@pytest.mark.parametrize("kind", _KINDS)
def test_the_shapes_of_a_call(make, kind: str) -> None:
    case = make(kind)
    engine = case.engine()
    for n in (1, 8, 3, 8):
        inputs = case.example(n)
        expected = [tuple(output.shape) for output in case.expected(*inputs)]
        if kind == "nonzero":
            expected = [(None, 2)]
        shapes = engine.output_shapes(*asked(engine, inputs))
        assert shapes == tuple(expected)
        assert all(type(size) in (int, type(None)) for shape in shapes for size in shape)


def test_shapes_of_data_dependent_outputs_after_runs(make) -> None:
    case = make("nonzero")
    engine = case.engine()
    module = TRTModule(engine)
    for n in (4, 2):
        inputs = case.example(n)
        case.assert_right(module(*inputs), case.expected(*inputs))
        assert engine.output_shapes(*asked(engine, inputs)) == ((None, 2),)


def test_a_tensorrt_whose_contexts_remember_the_last_run() -> None:
    engine = Engine.from_bytes(
        plans.nonzero(), backend=quirky_backend(Quirk.REMEMBERED_OUTPUT_SHAPES), device="cpu"
    )
    before = engine.output_shapes({"x": (3, 5)})
    TRTModule(engine)(torch.ones(3, 5))
    assert engine.output_shapes({"x": (3, 5)}) == before
    assert before[0] == (None, 2)
    assert engine.data_dependent_outputs == (engine.outputs[0].name,)


def test_data_dependent_outputs(make) -> None:
    assert make("relu").engine().data_dependent_outputs == ()
    assert len(make("nonzero").engine().data_dependent_outputs) == 1
    assert make("shape_tensor").engine().data_dependent_outputs == ()


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("relu", [(3, 7, 1)]),
        ("relu", [(3, 6)]),
        ("relu", [()]),
        ("static", [(2, 4)]),
        ("profiles", [(33, 4)]),
    ],
)
def test_the_message_is_that_of_a_call(make, kind: str, shapes: list[tuple[int, ...]]) -> None:
    case = make(kind)
    engine = case.engine()
    with pytest.raises(InputError) as of_the_call:
        TRTModule(engine)(*(torch.zeros(shape, device=case.device) for shape in shapes))
    with pytest.raises(InputError) as of_the_question:
        engine.output_shapes({io.name: shape for io, shape in zip(engine.inputs, shapes, strict=True)})
    assert str(of_the_question.value) == str(of_the_call.value)
    assert repr(engine.inputs[0].name) in str(of_the_question.value)


@pytest.mark.parametrize(
    ("shapes", "values", "words"),
    [
        ({}, {"length": [2]}, ["'x'", "got no shape", "input_shapes"]),
        ({"x": [4]}, None, ["'length'", "got no values", "shape_tensor_values"]),
        ({"x": [4], "y": [4]}, {"length": [2]}, ["'y'", "no input", "'x', 'length'"]),
        ({"x": [4]}, {"length": [2], "z": [1]}, ["'z'", "no input", "'x', 'length'"]),
        ({"x": [4]}, {"length": [2], "x": [1]}, ["'x'", "only shape tensors"]),
        ({"x": [4]}, {"length": [21]}, ["'length'", "[21]", "[1] to [9]"]),
        ({"x": [4]}, {"length": [2, 3]}, ["'length'", "[2]"]),
        ({"x": [4], "length": [1]}, {"length": [2, 3]}, ["'length'", "2 values", "[1]"]),
        ({"x": [4]}, {"length": [2**63]}, ["'length'", "torch.int64"]),
        ({"x": [4]}, {"length": ["2"]}, ["'length'", "whole numbers", "['2']"]),
        ({"x": 4}, {"length": [2]}, ["'x'", "whole numbers", "4"]),
        ({"x": [4.0]}, {"length": [2]}, ["'x'", "whole numbers", "4.0"]),
        ({"x": [-1]}, {"length": [2]}, ["'x'", "[-1]"]),
        ({"x": [2**63]}, {"length": [2]}, ["'x'", str(2**63)]),
        ([[4]], {"length": [2]}, ["input_shapes", "mapping", "list"]),
        ({"x": [4]}, [[2]], ["shape_tensor_values", "mapping", "list"]),
    ],
)
def test_what_is_refused(shapes: Any, values: Any, words: list[str]) -> None:
    engine = Engine.from_bytes(plans.shape_tensor())
    with pytest.raises(InputError) as refusal:
        engine.output_shapes(shapes, values)
    for word in words:
        assert word in str(refusal.value)
    assert engine.output_shapes({"x": [4]}, {"length": [5]}) == ((5,),)


class Contexts:
    """Counts the contexts that a backend creates, and those that are alive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = load("reference")
        create = backend.create_context
        self.made = 0
        self._alive: weakref.WeakSet[Any] = weakref.WeakSet()

        def created(*args: Any, **options: Any) -> Any:
            context = create(*args, **options)
            self.made += 1
            self._alive.add(context)
            return context

        monkeypatch.setattr(backend, "create_context", created)

    @property
    def alive(self) -> int:
        return len(self._alive)


def test_one_context_is_kept_and_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = Contexts(monkeypatch)
    engine = Engine.from_bytes(plans.profiles())
    assert contexts.made == 0
    for n in (1, 6, 2, 6):
        assert engine.output_shapes({"x": (n, 7)}) == ((n, 7),)
    assert contexts.made == contexts.alive == 1


def test_without_contexts_there_is_none_for_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = Contexts(monkeypatch)
    engine = Engine.from_bytes(plans.streaming())
    shapes = {io.name: io.profiles[0].opt if io.is_dynamic else io.shape for io in engine.inputs}
    expected = engine.output_shapes(shapes)
    assert engine.run_without_contexts(lambda _: contexts.alive) == 0
    engine.set_weight_streaming_budget(0)
    assert engine.output_shapes(shapes) == expected
    engine.set_weight_streaming_budget(engine.streamable_weights_size)
    assert engine.output_shapes(shapes) == expected


def test_questions_wait_while_there_must_be_no_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = Contexts(monkeypatch)
    engine = Engine.from_bytes(plans.affine())
    asking = threading.Event()

    def ask() -> Any:
        asking.set()
        return engine.output_shapes({"x": (3, 7)})

    with ThreadPoolExecutor(1) as pool:

        def change(tensorrt_engine: object) -> Future[Any]:
            answer = pool.submit(ask)
            assert asking.wait(SECONDS_UNTIL_DEADLOCK)
            assert contexts.made == 0
            return answer

        assert engine.run_without_contexts(change).result(SECONDS_UNTIL_DEADLOCK) == ((3, 7),)


def test_a_question_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.from_bytes(plans.affine())
    backend = load("reference")

    def none(*args: Any, **options: Any) -> Any:
        raise BackendError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(backend, "create_context", none)
        with pytest.raises(BackendError, match="no memory"):
            engine.output_shapes({"x": (3, 7)})
    assert engine.output_shapes({"x": (3, 7)}) == ((3, 7),)


def test_after_close() -> None:
    engine = Engine.from_bytes(plans.affine())
    assert engine.output_shapes({"x": (3, 7)}) == ((3, 7),)
    engine.close()
    with pytest.raises(ClosedError):
        engine.output_shapes({"x": (3, 7)})
    with pytest.raises(ClosedError):
        engine.data_dependent_outputs  # noqa: B018


def test_threads_ask_about_different_shapes() -> None:
    engine = Engine.from_bytes(plans.profiles())

    def ask(n: int) -> bool:
        return all(engine.output_shapes({"x": (n, 7)}) == ((n, 7),) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, [1, 6, 2, 7, 3, 8, 4, 5]))


def test_while_pytorch_traces() -> None:
    engine = Engine.from_bytes(plans.shape_tensor())
    with FakeTensorMode():
        assert engine.output_shapes({"x": (4,)}, {"length": (7,)}) == ((7,),)
    with torch.device("meta"):
        assert engine.output_shapes({"x": (4,)}, {"length": (6,)}) == ((6,),)
