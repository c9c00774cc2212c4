"""A tensor can become a negative view in place, at the same address and of the same shape."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

import trt_rt
from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs

GRAPHS = [pytest.param(False, id="enqueued"), pytest.param(True, id="cuda_graph")]


def graphs(module: trt_rt.TRTModule, enabled: bool) -> Any:
    return enable_cudagraphs(module, whole_graph=False) if enabled else nullcontext()


def negate_in_place(tensor: torch.Tensor) -> None:
    tensor.data = torch._neg_view(tensor.data)


@pytest.mark.parametrize("calls_before", [0, 1, 3])
@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_an_input(make, with_graphs, calls_before):
    """The sign is applied, and taken back again, however often the tensor was used before."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with graphs(module, with_graphs):
        for _ in range(calls_before):
            module(x)
        for _ in range(2):
            negate_in_place(x)
            assert x.is_neg()
            for _ in range(3):
                case.assert_right(module(x), case.expected(x))
            negate_in_place(x)
            assert not x.is_neg()
            for _ in range(3):
                case.assert_right(module(x), case.expected(x))


@pytest.mark.parametrize("turn", [0, 1])
def test_one_of_several_inputs(make, turn):
    """Each input is looked at."""
    case = make("two")
    module = case.module()
    inputs = case.example(2)
    for _ in range(3):
        module(*inputs)
    negate_in_place(inputs[turn])
    for _ in range(3):
        case.assert_right(module(*inputs), case.expected(*inputs))


def test_a_shape_tensor(make):
    """The values of a shape tensor are read with their sign."""
    case = make("shape_tensor")
    module = case.module()
    x, s = case.example(3)
    module(x, s)
    negative = -s
    negate_in_place(negative)
    assert negative.is_neg()
    case.assert_right(module(x, negative), case.expected(x, s))
    held = s.clone()
    module(x, held)
    negate_in_place(held)
    with pytest.raises(trt_rt.InputError):
        module(x, held)


def test_state(make):
    """State that an engine would have to write into with the sign reversed is refused, and left as it is."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    for _ in range(3):
        module(cache, x)
    negate_in_place(cache)
    before = cache.clone()
    with pytest.raises(trt_rt.InputError, match="'cache'"):
        module(cache, x)
    assert torch.equal(cache, before)


@pytest.mark.parametrize("calls_before", [0, 1, 3])
@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_out(make, with_graphs, calls_before):
    """An out= in which the result would have the other sign is refused."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    out = module(x).clone()
    with graphs(module, with_graphs):
        for _ in range(calls_before):
            module(x, out=out)
        negate_in_place(out)
        before = out.clone()
        with pytest.raises(trt_rt.InputError, match="negat"):
            module(x, out=out)
        assert torch.equal(out, before)
        negate_in_place(out)
        module(x, out=out)
        case.assert_right(out, case.expected(x))


@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_a_pre_allocated_result(make, with_graphs):
    """A result that the caller has turned into its negative does not turn the next."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with enable_pre_allocated_outputs(module), graphs(module, with_graphs):
        for _ in range(4):
            result = module(x)
            case.assert_right(result, case.expected(x))
            assert not result.is_neg()
            negate_in_place(result)


def test_a_negative_view_is_not_bound(make):
    """A bound call reads memory as it lies there, so a negative view is refused."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    negate_in_place(x)
    with pytest.raises(trt_rt.InputError):
        module.bind(x)
