"""A TRTModule is made of a plan and binding names, and called like any other nn.Module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import Engine, PythonTorchTensorRTModule, TRTModule
from trt_rt.errors import InputValueError


@pytest.mark.parametrize("source", ["bytes", "path", "string", "engine", "buffer"])
def test_sources(tmp_path: Path, x: torch.Tensor, source: str) -> None:
    path = tmp_path / "affine.plan"
    path.write_bytes(plans.affine())
    made = {
        "bytes": lambda: TRTModule(plans.affine()),
        "path": lambda: TRTModule(path),
        "string": lambda: TRTModule(str(path)),
        "engine": lambda: TRTModule(Engine.load(path)),
        "buffer": lambda: TRTModule(memoryview(bytearray(plans.affine()))),
    }[source]()
    torch.testing.assert_close(made(x), eager_affine(x))


def test_an_engine_is_used_as_it_is() -> None:
    engine = Engine.from_bytes(plans.affine())
    assert TRTModule(engine).engine is engine


@pytest.mark.parametrize("source", [None, 3, 1.5, object()])
def test_what_is_no_plan(source: Any) -> None:
    with pytest.raises(TypeError):
        TRTModule(source)


def test_the_name_users_of_torch_tensorrt_know(x: torch.Tensor) -> None:
    assert PythonTorchTensorRTModule is TRTModule
    made = PythonTorchTensorRTModule(plans.affine(), ["x"], ["output0"], name="old", settings={"a": 1})
    assert (made.input_binding_names, made.output_binding_names) == (["x"], ["output0"])
    assert (made.name, made.settings, made.weight_name_map) == ("old", {"a": 1}, None)
    torch.testing.assert_close(made(x), eager_affine(x))


def test_only_the_first_three_are_positional() -> None:
    with pytest.raises(TypeError):
        TRTModule(plans.affine(), ["x"], ["output0"], "name")


def test_binding_names_give_the_order() -> None:
    made = TRTModule(plans.two(), ["b", "a"], ["increment", "sum"])
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    increment, total = made(b, a)
    torch.testing.assert_close(increment, b + 1)
    torch.testing.assert_close(total, a + b)
    bound = made.bind(b, a)
    torch.testing.assert_close(bound(), (b + 1, a + b))
    assert (made.input_binding_names, made.output_binding_names) == (["b", "a"], ["increment", "sum"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (["a", "c"], None, ["'c'", "'a', 'b'"]),
        (["a", "sum"], None, ["'sum'", "output", "'a', 'b'"]),
        (["a"], None, ["['a']", "'a', 'b'"]),
        (["a", "a"], None, ["'a', 'a'", "'a', 'b'"]),
        (["a", "b", "a"], None, ["'a', 'b'"]),
        ([], None, ["'a', 'b'"]),
        (None, ["sum", "a"], ["'a'", "input", "'sum', 'increment'"]),
        (None, ["sum"], ["'sum', 'increment'"]),
        (None, ["total", "increment"], ["'total'", "'sum', 'increment'"]),
    ],
)
def test_names_that_do_not_fit(inputs: Any, outputs: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match="binding_names") as error:
        TRTModule(plans.two(), inputs, outputs)
    for word in words:
        assert word in str(error.value)


def test_binding_names_for_an_engine_without_inputs() -> None:
    made = TRTModule(plans.constants(), [], ["output1", "output0"])
    number, numbers = made()
    torch.testing.assert_close((number, numbers), (torch.full((), 2.5), torch.arange(4)))


# Calling it


def test_results_of_every_count(two: TRTModule, module: TRTModule, x: torch.Tensor) -> None:
    assert isinstance(module(x), torch.Tensor)
    result = two(torch.randn(2, 3), torch.randn(2, 3))
    assert isinstance(result, tuple)
    assert len(result) == 2


def test_no_outputs() -> None:
    class Sink(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[()]:
            return ()

    from trt_rt import reference

    made = TRTModule(reference.build(Sink(), (torch.zeros(2),)))
    assert made(torch.zeros(2)) == ()
    assert made.bind(torch.zeros(2))() == ()
    made.set_pre_allocated_outputs(True)
    assert made(torch.zeros(2)) == ()
    assert made(torch.zeros(2), out=()) == ()


def test_keyword_arguments(two: TRTModule) -> None:
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    expected = (a + b, b + 1)
    for result in (
        two(a, b),
        two(a, b=b),
        two(a=a, b=b),
        two(b=b, a=a),
        two.bind(a, b=b)(),
        two.bind(b=b, a=a)(),
    ):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("call", [lambda module: module, lambda module: module.bind], ids=["call", "bind"])
@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, ["takes 2 input(s), got 0"]),
        ((0,), {}, ["takes 2 input(s), got 1"]),
        ((0, 0, 0), {}, ["takes 2 input(s), got 3"]),
        ((0,), {"a": 0}, ["['a']", "unexpected"]),
        ((0,), {"c": 0}, ["['c']", "unexpected"]),
        ((), {"b": 0}, ["['a']", "missing"]),
        ((0, 0), {"b": 0}, ["['b']", "unexpected"]),
        ((), {"a": 0, "b": 0, "inputs": 0}, ["['inputs']", "unexpected"]),
        ((0, 0, 0), {"b": 0}, ["'a', 'b'"]),
    ],
)
def test_a_wrong_count_or_keyword(
    two: TRTModule, call: Any, args: Any, kwargs: Any, words: list[str]
) -> None:
    t = torch.zeros(2, 3)
    with pytest.raises(InputValueError) as error:
        call(two)(*[t for _ in args], **dict.fromkeys(kwargs, t))
    for word in words:
        assert word in str(error.value)
    torch.testing.assert_close(two(t, t), (t, t + 1))


def test_an_input_that_has_the_name_of_a_parameter() -> None:
    from trt_rt import reference

    plan = reference.build(
        plans.SumAndIncrement(), (torch.zeros(2), torch.zeros(2)), input_names=["out", "self"]
    )
    made = TRTModule(plan)
    a, b = torch.randn(2), torch.randn(2)
    torch.testing.assert_close(made(a, b), (a + b, b + 1))


def test_outputs_never_require_grad(module: TRTModule, x: torch.Tensor) -> None:
    x.requires_grad_()
    result = module(x)
    assert not result.requires_grad
    torch.testing.assert_close(result, eager_affine(x).detach())
    assert not module(nn.Parameter(x)).requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_grad_modes(module: TRTModule, x: torch.Tensor, mode: Any) -> None:
    with mode():
        torch.testing.assert_close(module(x), eager_affine(x))
    torch.testing.assert_close(module(x), eager_affine(x))
