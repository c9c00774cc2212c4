"""Memory that autograd has saved is not overwritten without autograd noticing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import trt_rt
from trt_rt.runtime import enable_cudagraphs, enable_pre_allocated_outputs

pytestmark = pytest.mark.behaviour(37)

GRAPHS = [pytest.param(False, id="enqueued"), pytest.param(True, id="cuda_graph")]
OVERWRITTEN = "modified by an inplace operation"

# What autograd may have saved of a tensor: itself, or something in its memory.
SAVED = {
    "itself": lambda tensor: tensor,
    "a view": lambda tensor: tensor.view(-1),
    "a slice": lambda tensor: tensor[:1],
    "detached": lambda tensor: tensor.detach(),
    "a view of detached": lambda tensor: tensor.detach().view(-1),
}


def graphs(module: trt_rt.TRTModule, enabled: bool) -> Any:
    return enable_cudagraphs(module, whole_graph=False) if enabled else nullcontext()


def loss_that_saves(tensor: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient needs the tensor's values."""
    weight = torch.ones((), device=tensor.device, requires_grad=True)
    return (tensor * weight).sum()


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_out(make, with_graphs, saved):
    """A call that writes into a tensor of the caller's is noticed, as PyTorch's operators with out= are."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with graphs(module, with_graphs):
        out = module(x).clone()
        for _ in range(3):  # also in the steady state
            module(x, out=out)
            loss = loss_that_saves(SAVED[saved](out))
            module(x, out=out)
            with pytest.raises(RuntimeError, match=OVERWRITTEN):
                loss.backward()


@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_out_of_several(make, with_graphs):
    """Each of several outputs is noticed."""
    case = make("two")
    module = case.module()
    inputs = case.example(2)
    with graphs(module, with_graphs):
        outs = tuple(output.clone() for output in module(*inputs))
        for saved in outs:
            module(*inputs, out=outs)
            loss = loss_that_saves(saved)
            module(*inputs, out=outs)
            with pytest.raises(RuntimeError, match=OVERWRITTEN):
                loss.backward()


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_pre_allocated(make, with_graphs, saved):
    """A later call that writes into the memory of an earlier result is noticed."""
    case = make("two")
    module = case.module()
    inputs = case.example(2)
    with enable_pre_allocated_outputs(module), graphs(module, with_graphs):
        for turn in range(4):
            results = module(*inputs)
            loss = loss_that_saves(SAVED[saved](results[turn % 2]))
            held = results if turn < 2 else None  # whether or not the caller holds the result
            del results
            module(*inputs)
            with pytest.raises(RuntimeError, match=OVERWRITTEN):
                loss.backward()
            del held


@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_pre_allocated_without_grad_mode(make, with_graphs):
    """The same if the calls themselves are made without grad mode, as features for a head are."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with enable_pre_allocated_outputs(module), graphs(module, with_graphs):
        for _ in range(3):
            with torch.no_grad():
                features = module(x)
            loss = loss_that_saves(features)
            with torch.no_grad():
                module(x)
            with pytest.raises(RuntimeError, match=OVERWRITTEN):
                loss.backward()


def test_pre_allocated_in_turn(make):
    """With several buffers a gradient is right as long as its result lasts, and refused from then on."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with enable_pre_allocated_outputs(module, buffers=2):
        for _ in range(3):
            result = module(x)
            early, late = loss_that_saves(result), loss_that_saves(result)
            module(x)
            early.backward()
            module(x)
            with pytest.raises(RuntimeError, match=OVERWRITTEN):
                late.backward()


def test_what_is_not_overwritten_has_a_gradient(make):
    """Fresh results, and those whose backward comes before the next call, have their gradient."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    for mode in (nullcontext(), enable_pre_allocated_outputs(module)):
        with mode:
            for _ in range(3):
                result = module(x)
                weight = torch.ones((), device=case.device, requires_grad=True)
                (result * weight).sum().backward()
                torch.testing.assert_close(weight.grad, result.sum())
    losses = [loss_that_saves(module(x)) for _ in range(3)]
    for loss in losses:
        loss.backward()


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_state_that_is_written_in_place(make, with_graphs, saved):
    """State that the engine updates in the caller's tensor."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    with graphs(module, with_graphs):
        for _ in range(3):
            loss = loss_that_saves(SAVED[saved](cache))
            module(cache, x)
            with pytest.raises(RuntimeError, match=OVERWRITTEN):
                loss.backward()


@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_bound_calls(make, with_graphs):
    """Every call of a bound call writes into the same memory, its own or the caller's."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    out = module(x).clone()
    with graphs(module, with_graphs):
        for bound in (module.bind(x), module.bind(x, out=out)):
            for _ in range(3):
                loss = loss_that_saves(bound())
                bound()
                with pytest.raises(RuntimeError, match=OVERWRITTEN):
                    loss.backward()


@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_bound_calls_with_state(make, with_graphs):
    """State that a bound call updates."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    with graphs(module, with_graphs):
        bound = module.bind(cache, x)
        for _ in range(3):
            loss = loss_that_saves(cache)
            bound()
            with pytest.raises(RuntimeError, match=OVERWRITTEN):
                loss.backward()


def test_a_refused_call_overwrites_nothing(make):
    """A call that is refused leaves what was saved valid."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    out = module(x).clone()
    loss = loss_that_saves(out)
    with pytest.raises(trt_rt.InputError):
        module(x.double(), out=out)
    loss.backward()


@pytest.mark.parametrize("with_graphs", GRAPHS)
def test_a_result_that_was_made_to_require_grad(make, with_graphs):
    """The next pre-allocated result does not require grad, whatever became of the last one."""
    case = make("two")
    module = case.module()
    inputs = case.example(2)
    with enable_pre_allocated_outputs(module), graphs(module, with_graphs):
        for _ in range(3):
            first, second = module(*inputs)
            assert not first.requires_grad
            assert not second.requires_grad
            assert second.grad is None
            second.requires_grad_()
            second.sum().backward()


@pytest.mark.parametrize("make_bound", [False, True], ids=["call", "bind"])
def test_an_out_that_requires_grad_is_refused(make, make_bound):
    """As PyTorch's own operators do; also the second time, and when it is changed in place between calls."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    call: Callable[..., Any] = module.bind if make_bound else module
    leaf = module(x).clone().requires_grad_()
    before = leaf.detach().clone()
    for _ in range(2):
        with pytest.raises(trt_rt.InputError, match="requires grad"):
            call(x, out=leaf)
        assert torch.equal(leaf, before)
    out = before.clone()
    for _ in range(3):
        module(x, out=out)
    out.requires_grad_()
    with pytest.raises(trt_rt.InputError, match="requires grad"):
        call(x, out=out)


def test_an_out_that_has_a_history_is_refused(make):
    """The result of an operator with a gradient cannot be written into either."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    out = module(x).clone().requires_grad_() * 1
    with pytest.raises(trt_rt.InputError, match="requires grad"):
        module(x, out=out)


def test_an_out_that_requires_grad_may_be_written_without_grad_mode(make):
    """Without grad mode PyTorch's operators write into parameters, and so do engines."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    leaf = module(x).clone().requires_grad_()
    with torch.no_grad():
        leaf.zero_()
        module(x, out=leaf)
    case.assert_right(leaf.detach(), case.expected(x))
    assert leaf.requires_grad
    assert leaf.grad_fn is None


def test_an_inference_tensor_is_written_in_inference_mode_only(make):
    """As PyTorch does: outside it, an inference tensor as out= is refused."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(2)
    with torch.inference_mode():
        out = module(x).clone()
        assert out.is_inference()
        for _ in range(2):
            out.zero_()
            module(x, out=out)
            case.assert_right(out.clone(), case.expected(x))
    for call in (module, module.bind):
        for _ in range(2):
            with pytest.raises(trt_rt.InputError, match="inference"):
                call(x, out=out)


def test_state_in_an_inference_tensor(make):
    """The same for state that the engine writes into."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    with torch.inference_mode():
        inference = cache.clone()
        expected = case.expected(inference, x)
        module(inference, x)
        case.assert_right(inference.clone(), expected)
    with pytest.raises(trt_rt.InputError, match="inference"):
        module(inference, x)
