"""Behaviour 15: scratch memory is sized for the values of shape tensors, whoever calls first."""

from __future__ import annotations

import pytest

from trt_rt.runtime import use_dynamically_allocated_resources


@pytest.mark.parametrize("kind", ["shape_tensor", "shape_tensor32"])
def test_a_bound_call_that_runs_first(make, kind):
    """A call that was bound before the mode was entered asks for enough, for the largest values too."""
    case = make(kind)
    module = case.module()
    bound, inputs = [], []
    for n in (9, 2, 5):
        inputs.append(case.example(n))
        bound.append(module.bind(*inputs[-1]))
    with use_dynamically_allocated_resources(module):
        for call, each in zip(bound, inputs, strict=True):
            case.assert_right(call(), case.expected(*each))


@pytest.mark.parametrize("kind", ["shape_tensor", "shape_tensor32"])
def test_a_bound_call_that_is_made_within(make, kind):
    """The same for calls that are bound within the mode and run in another order, between ordinary calls."""
    case = make(kind)
    module = case.module()
    with use_dynamically_allocated_resources(module):
        inputs = [case.example(n) for n in (2, 9, 5)]
        bound = [module.bind(*each) for each in inputs]
        for turn in (1, 0, 2, 1):
            case.assert_right(bound[turn](), case.expected(*inputs[turn]))
            small = case.example(1)
            case.assert_right(module(*small), case.expected(*small))
