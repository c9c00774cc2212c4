"""Outputs that lie in an input's memory: which a call returns, and how a module is told of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.export import Dim

from tests.reference import plans
from trt_rt import SettingError, TRTModule, enable_cudagraphs, reference
from trt_rt.errors import InputValueError


def _module(**options: Any) -> TRTModule:
    """cache[8, 4], x[8, 4]: adds x to cache in place, and returns x * 2."""
    return TRTModule(plans.accumulate(), **options)


def _tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 4), torch.randn(8, 4)


@pytest.mark.parametrize("mode", ["fresh", "pre_allocated", "graphs", "pre_allocated graphs", "bound"])
def test_a_call_does_not_return_them(mode: str) -> None:
    module = _module()
    module.configure(pre_allocated_outputs="pre_allocated" in mode, cuda_graphs="graphs" in mode)
    for _ in range(3):
        cache, x = _tensors()
        expected = cache + x
        result = module.bind(cache, x)() if mode == "bound" else module(cache, x)
        assert type(result) is torch.Tensor
        torch.testing.assert_close(result, x * 2)
        torch.testing.assert_close(cache, expected)


def test_a_bound_call_with_graphs_does_not_return_them() -> None:
    module = _module()
    cache, x = _tensors()
    with enable_cudagraphs(module):
        bound = module.bind(cache, x)
        for _ in range(3):
            expected = cache + x
            torch.testing.assert_close(bound(), x * 2)
            torch.testing.assert_close(cache, expected)


def test_a_call_returns_them_on_demand() -> None:
    module = _module(aliased_outputs="return")
    cache, x = _tensors()
    results = dict(zip(module.output_binding_names, module(cache, x), strict=True))
    assert results["cache_out"].data_ptr() == cache.data_ptr()
    torch.testing.assert_close(results["output0"], x * 2)


class Increment(torch.nn.Module):
    def forward(self, counter: torch.Tensor) -> torch.Tensor:
        return counter + 1


@pytest.mark.parametrize("graphs", [False, True])
def test_a_call_of_an_engine_with_no_other_outputs_returns_nothing(graphs: bool) -> None:
    plan = reference.build(Increment(), (torch.zeros(4),), output_names=["next"], aliases={"next": "counter"})
    module = TRTModule(plan)
    module.configure(cuda_graphs=graphs)
    counter = torch.zeros(4)
    for count in range(1, 4):
        assert module(counter) == ()
        torch.testing.assert_close(counter, torch.full((4,), float(count)))
    assert module.bind(counter)() == ()
    assert module(counter, out=()) == ()


def test_out_has_a_tensor_for_each_that_is_returned() -> None:
    module = _module()
    cache, x = _tensors()
    expected = cache + x
    out = torch.empty(8, 4)
    assert module(cache, x, out=out) is out
    torch.testing.assert_close(out, x * 2)
    torch.testing.assert_close(cache, expected)
    with pytest.raises(InputValueError, match=r"returns 1 output\(s\), but out= holds 2"):
        module(cache, x, out=(out, cache))
    torch.testing.assert_close(cache, expected)


def test_the_attribute() -> None:
    assert _module().aliased_io == {"cache_out": "cache"}
    assert TRTModule(plans.affine()).aliased_io == {}


@pytest.mark.parametrize("value", ["cache", ("cache", "kv_cache_update")])
def test_what_the_plan_says_may_be_said_again(value: Any) -> None:
    module = _module(aliased_io={"cache_out": value})
    assert module.aliased_io == {"cache_out": "cache"}
    cache, x = _tensors()
    torch.testing.assert_close(module(cache, x), x * 2)


@pytest.mark.parametrize(
    ("aliased_io", "words"),
    [
        ({"cache_out": "x"}, "the plan says that it lies in the memory of input 'cache'"),
        ({"other": "cache"}, "the engine has the outputs"),
        ({"output0": "other"}, "the engine has the inputs"),
        ({"output0": "cache"}, "output 'cache_out' lies in the memory of that input"),
    ],
)
def test_what_does_not_fit_the_engine(aliased_io: dict[str, str], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        _module(aliased_io=aliased_io)


def test_another_dtype_does_not_fit() -> None:
    plan = reference.build(torch.nn.ReLU(), (torch.zeros(3),), input_names=["x"], output_names=["y"])
    TRTModule(plan, aliased_io={"y": "x"})
    other = reference.build(plans.Nonzero(), (torch.eye(3),), input_names=["x"], output_names=["n", "y"])
    with pytest.raises(SettingError, match="does not fit into the memory of input"):
        TRTModule(other, aliased_io={"n": "x"})


def test_a_plan_that_does_not_say_so() -> None:
    module = TRTModule(plans.two(), aliased_io={"sum": "a"})
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    expected = a + b
    torch.testing.assert_close(module(a, b), b + 1)
    torch.testing.assert_close(a, expected)


class Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x])


def test_an_output_that_is_larger_than_its_input() -> None:
    plan = reference.build(
        Twice(),
        (torch.zeros(2, 3),),
        dynamic_shapes=({0: Dim("batch", min=1, max=8)},),
        input_names=["x"],
        output_names=["y"],
    )
    module = TRTModule(plan, aliased_io={"y": "x"})
    x = torch.ones(2, 3)
    with pytest.raises(InputValueError, match=r"shape \[4, 3\] here, and cannot lie in .* 'x'"):
        module(x)
    torch.testing.assert_close(x, torch.ones(2, 3))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("aliased_outputs", ["omit", "return"])
def test_copies_return_the_same(duplicate: Any, aliased_outputs: Any) -> None:
    other = duplicate(_module(aliased_outputs=aliased_outputs))
    assert other.aliased_outputs == aliased_outputs
    assert isinstance(other(*_tensors()), tuple) is (aliased_outputs == "return")


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="'omit' or 'return'"):
        _module(aliased_outputs="drop")
