"""Behaviour 14: state that an engine writes into, and the other tensors of a call."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

import trt_rt
from trt_rt.runtime import enable_cudagraphs

GRAPHS = [pytest.param(False, id="enqueued"), pytest.param(True, id="cuda_graph")]


def graphs(module: trt_rt.TRTModule, enabled: bool) -> Any:
    return enable_cudagraphs(module, whole_graph=False) if enabled else nullcontext()


@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_out_is_compared_with_the_state_of_every_call(make, with_graphs):
    """The same out= with other state is refused, in words that name the state, and nothing is written."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    other = cache.clone()
    with graphs(module, with_graphs):
        for _ in range(3):
            module(cache, x, out=cache)
        before = cache.clone()
        for _ in range(2):
            with pytest.raises(trt_rt.InputError, match="'cache'"):
                module(other, x, out=cache)
        assert torch.equal(cache, before)
        expected = case.expected(other, x)
        module(other, x, out=other)
        case.assert_right(other, expected)


def shifted(memory: torch.Tensor, like: torch.Tensor, start: int) -> torch.Tensor:
    return memory[start : start + like.numel()].view(like.shape)


@pytest.mark.parametrize("with_graphs", GRAPHS)
@pytest.mark.parametrize("overlap", ["all", "part"])
def test_state_and_input_in_one_memory_are_refused(make, with_graphs, overlap):
    """An engine may write its state before it has read its inputs, so they must not share memory."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    step = case.alignment // cache.element_size()
    memory = torch.zeros(cache.numel() + step, device=cache.device)
    state = shifted(memory, cache, 0)
    same = state if overlap == "all" else (state.view_as(state), shifted(memory, cache, step))[1]
    if overlap == "part" and step >= cache.numel():
        pytest.skip(f"an engine on {case.device} wants memory that starts at {case.alignment} bytes")
    with graphs(module, with_graphs):
        for calls_before in (0, 1, 3):
            for _ in range(calls_before):
                module(cache, x)
                module(state, x)
            before = memory.clone()
            with pytest.raises(trt_rt.InputError, match="'cache'"):
                module(state, same)
            assert torch.equal(memory, before)
        expected = case.expected(cache, x)
        case.assert_right(module(cache, x), expected)


def test_a_bound_call_of_state_and_input_in_one_memory_is_refused(make):
    """The same for a call that is bound once."""
    case = make("aliased")
    module = case.module()
    cache, _ = case.example(1)
    with pytest.raises(trt_rt.InputError, match="'cache'"):
        module.bind(cache, cache)
    with pytest.raises(trt_rt.InputError, match="'cache'"):
        module.bind(cache, cache.view(-1).view_as(cache))


def test_inputs_that_are_only_read_may_share_memory(make):
    """Nothing is wrong with one tensor for two inputs that the engine does not write into."""
    case = make("two")
    module = case.module()
    a, _ = case.example(2)
    for _ in range(3):
        case.assert_right(module(a, a), case.expected(a, a))
