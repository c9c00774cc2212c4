"""Outputs have the shape of their own call, whatever came before it."""

from __future__ import annotations

import random

import pytest
import torch

from tests.behaviours.modes import MODES, Caller

pytestmark = pytest.mark.behaviour(1)


@pytest.mark.parametrize("kind", ["relu", "two", "many", "shape_tensor", "profiles", "nonzero"])
def test_any_order_of_modes_and_shapes(make, kind):
    """Changing modes and shapes in any order never lets a call write into a buffer of another shape."""
    case = make(kind)
    module = case.module()
    modes = [mode for mode in MODES if kind != "nonzero" or mode != "out"]
    choice = random.Random(1)
    caller = Caller(module, "fresh")
    for _ in range(80):
        if choice.random() < 0.4:
            caller = Caller(module, choice.choice(modes))
        inputs = case.example(choice.choice([1, 2, 3, 5, 32]))
        expected = case.expected(*inputs)
        case.assert_right(caller(inputs, expected), expected)


def test_every_shape_has_its_own_buffers(make):
    """With outputs pre-allocated for a large batch, a small one gets a small output, and vice versa."""
    case = make("relu")
    module = case.module()
    module.set_pre_allocated_outputs(True)
    for n in (8, 3, 8, 32, 1, 32):
        inputs = case.example(n)
        result = module(*inputs)
        case.assert_right(result, case.expected(*inputs))
        assert result.untyped_storage().nbytes() == result.nbytes


def test_a_bound_call_keeps_its_shapes(make):
    """A bound call goes on writing outputs of the shapes it was bound for, between calls of other shapes."""
    case = make("two")
    module = case.module()
    small, large = case.example(2), case.example(16)
    bound_small, bound_large = module.bind(*small), module.bind(*large)
    for mode in ("fresh", "pre_allocated"):
        module.set_pre_allocated_outputs(mode == "pre_allocated")
        for n in (5, 2, 16):
            inputs = case.example(n)
            case.assert_right(bound_large(), case.expected(*large))
            case.assert_right(module(*inputs), case.expected(*inputs))
            case.assert_right(bound_small(), case.expected(*small))


@pytest.mark.parametrize(
    "alter",
    [
        pytest.param(lambda y: y.t_(), id="t_"),
        pytest.param(lambda y: y.unsqueeze_(0), id="unsqueeze_"),
        pytest.param(lambda y: y.set_(torch.zeros(2, device=y.device)), id="set_"),
        pytest.param(lambda y: setattr(y, "data", torch.zeros(2, device=y.device)), id="data"),
    ],
)
@pytest.mark.parametrize("n", [3, 7])
def test_altering_a_pre_allocated_output(make, alter, n):
    """What a caller does to the shape or memory of a pre-allocated output does not reach the next call's."""
    case = make("relu")
    module = case.module()
    module.set_pre_allocated_outputs(True)
    alter(module(*case.example(n)))
    inputs = case.example(n)
    result = module(*inputs)
    case.assert_right(result, case.expected(*inputs))
    assert not result.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_buffers_made_in_inference_mode(make, mode):
    """What a call under torch.inference_mode leaves behind does not make later outputs inference tensors."""
    case = make("relu")
    inputs = case.example(3)
    caller = Caller(case.module(), mode)
    with torch.inference_mode():
        case.assert_right(caller(inputs, case.expected(*inputs)), case.expected(*inputs))
    result = caller(inputs, case.expected(*inputs))
    factor = torch.ones_like(result, requires_grad=True)
    (result * factor).sum().backward()  # autograd refuses to keep an inference tensor
    torch.testing.assert_close(factor.grad, case.expected(*inputs)[0])
