"""Shape tensors are read in host memory, by value."""

from __future__ import annotations

import pytest
import torch

import trt_rt
from tests.behaviours.modes import MODES, Caller

pytestmark = pytest.mark.behaviour(15)

_KINDS = pytest.mark.parametrize("kind", ["shape_tensor", "shape_tensor32"])


@_KINDS
@pytest.mark.parametrize("mode", MODES)
def test_new_tensors_with_new_values(make, kind, mode):
    """Both integer types are right in every mode, with tensors that are gone once the call returns."""
    case = make(kind)
    caller = Caller(case.module(), mode)
    for n in (1, 9, 4, 4, 1, 9):
        inputs = case.example(n)
        expected = case.expected(*inputs)
        assert expected[0].shape == (n,)
        result = caller(inputs, expected)
        del inputs
        case.assert_right(result, expected)


@_KINDS
def test_new_values_in_the_same_tensor(make, kind):
    """A value written into the tensor of the last call is noticed."""
    case = make(kind)
    module = case.module()
    x, s = case.example(4)
    for value in (4, 7, 7, 1, 4):
        s.fill_(value)
        case.assert_right(module(x, s), case.expected(x, s))


@_KINDS
def test_a_bound_call_keeps_the_values(make, kind):
    """A bound call has the values that it was bound with, whatever becomes of the tensor."""
    case = make(kind)
    module = case.module()
    x, s = case.example(4)
    bound = module.bind(x, s)
    expected = case.expected(x, s)
    s.fill_(7)
    case.assert_right(bound(), expected)
    case.assert_right(module(x, s), case.expected(x, s))
    other = module.bind(x, torch.full_like(s, 2))
    case.assert_right(bound(), expected)
    case.assert_right(other(), case.expected(x, torch.full_like(s, 2)))
    case.assert_right(bound(), expected)


def test_any_host_memory(make):
    """Values may lie anywhere in host memory: at any address, in any strides, pinned, NumPy's."""
    case = make("shape_tensor")
    module = case.module()
    x, _ = case.example(4)
    numbers = torch.tensor([9, 8, 7, 6, 5, 4, 3, 2, 1])
    views = [numbers[i : i + 1] for i in range(9)]
    views += [numbers[2:5:3], numbers[:1].expand(1), numbers.flip(0)[3:4]]
    if case.device.type == "cuda":
        views.append(torch.tensor([5]).pin_memory())
    for s in views:
        case.assert_right(module(x, s), case.expected(x, s))
    s = torch.tensor([6])
    case.assert_right(module(x, s.numpy()), case.expected(x, s))


@_KINDS
def test_other_tensors_are_refused(make, kind):
    """Another integer type or shape is refused with the input's name, and not converted."""
    case = make(kind)
    module = case.module()
    x, s = case.example(4)
    other = torch.int32 if s.dtype is torch.int64 else torch.int64
    for bad, error in (
        (s.to(other), TypeError),
        (s.float(), TypeError),
        (torch.cat([s, s]), ValueError),
        (s[0], ValueError),
    ):
        with pytest.raises(error, match=f"'{case.inputs[1]}'"):
            module(x, bad)
        case.assert_right(module(x, s), case.expected(x, s))


@pytest.mark.gpu
def test_no_round_trip_from_the_device(make):
    """Values in device memory are refused: reading them would make the host wait for the device."""
    case = make("shape_tensor")
    module = case.module()
    x, s = case.example(4)
    with pytest.raises(trt_rt.InputError, match="host memory"):
        module(x, s.cuda())
    case.assert_right(module(x, s), case.expected(x, s))
