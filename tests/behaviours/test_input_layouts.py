"""Inputs that do not lie in memory as TensorRT needs them."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.modes import Caller
from tests.behaviours.recording import recorded


def _transposed(x):
    return x.t().contiguous().t()


def _every_other_column(x):
    spread = torch.full((x.shape[0], 2 * x.shape[1]), 7, dtype=x.dtype, device=x.device)
    spread[:, ::2] = x
    return spread[:, ::2]


def _one_row_for_all(x):
    return x[:1].expand_as(x)


def _one_number_for_all(x):
    return x[:1, :1].expand_as(x)


def _overlapping_rows(x):
    return x.flatten().as_strided(x.shape, (1, 1))


def _part_of_rows(x):
    return torch.cat([x, x, x], dim=1)[:, x.shape[1] : 2 * x.shape[1]]


def _odd_stride_of_one_row(x):
    return x[:1].as_strided((1, x.shape[1]), (12345, 1))


_LAYOUTS = [
    _transposed,
    _every_other_column,
    _one_row_for_all,
    _one_number_for_all,
    _overlapping_rows,
    _part_of_rows,
    _odd_stride_of_one_row,
]


def _unaligned(x, elements):
    """The same values, contiguous, at an address that lies `elements` elements after an aligned one."""
    memory = torch.empty(x.numel() + elements, dtype=x.dtype, device=x.device)
    view = memory[elements:].view(x.shape)
    return view.copy_(x)


@pytest.mark.behaviour(11)
@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("kind", ["relu", "half", "two", "many", "nonzero"])
def test_any_strides(make, layout, kind):
    """Transposed, strided, expanded, overlapping: the engine sees the values that PyTorch sees."""
    case = make(kind)
    module = case.module()
    for pre_allocated in (False, True):
        module.set_pre_allocated_outputs(pre_allocated)
        for n in (3, 1, 8):
            inputs = tuple(layout(tensor) for tensor in case.example(n))
            case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(11)
@pytest.mark.parametrize("layout", _LAYOUTS)
def test_mixed_with_contiguous_inputs(make, layout):
    """Only the input that needs it is rearranged; the others stay what they are."""
    case = make("many")
    module = case.module()
    for position in range(4):
        inputs = list(case.example(3))
        inputs[position] = layout(inputs[position])
        inputs = [tensor[: inputs[position].shape[0]] for tensor in inputs]
        case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.behaviour(11)
def test_a_copy_is_made_anew_for_every_call(make):
    """New values in the same non-contiguous tensor are seen by the next call."""
    case = make("relu")
    module = case.module()
    x = _transposed(case.example(5)[0])
    for _ in range(4):
        x.copy_(torch.randn_like(x))
        case.assert_right(module(x), case.expected(x))


@pytest.mark.behaviour(11)
def test_a_view_at_the_same_address(make):
    """A square tensor and its transpose share address and shape, and are told apart, call after call."""
    case = make("streaming")
    module = case.module()
    (x,) = case.example(4)
    for view in (x, x.t(), x, x.t(), x.t(), x):
        case.assert_right(module(view), case.expected(view))


@pytest.mark.behaviour(11)
def test_a_tensor_that_is_changed_in_place(make):
    """The very tensor of the last call, with other strides, shape or memory, is read as it is now."""
    case = make("streaming")
    module = case.module()
    (x,) = case.example(4)
    alterations = [
        lambda: x.t_(),
        lambda: x.t_(),
        lambda: x.resize_(3, 4),
        lambda: x.set_(torch.randn(5, 4, device=x.device)),
        lambda: setattr(x, "data", torch.randn(4, 4, device=x.device).t()),
        lambda: setattr(x, "data", torch._neg_view(x.data)),
        lambda: x.set_(torch.randn(8, device=x.device).untyped_storage(), 4, (1, 4), (4, 1)),
    ]
    case.assert_right(module(x), case.expected(x))
    for alter in alterations:
        alter()
        case.assert_right(module(x), case.expected(x))


@pytest.mark.behaviour(11)
def test_temporaries_are_not_kept(make):
    """A copy lives for its call only, and a caller's tensor is not kept alive by the module."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(3)
    view = _every_other_column(x)
    storage = torch.multiprocessing.reductions.StorageWeakRef(view.untyped_storage())
    case.assert_right(module(view), case.expected(view))
    module(x)
    del view
    assert storage.expired()


@pytest.mark.behaviour(11)
def test_a_copy_cannot_be_bound(make):
    """A bound call reads its tensors again and again, so one that would be copied is refused."""
    case = make("two")
    module = case.module()
    a, b = case.example(3)
    for inputs in ((_transposed(a), b), (a, _unaligned(b, 1))):
        name = case.inputs[0] if inputs[1] is b else case.inputs[1]
        with pytest.raises(ValueError, match=f"'{name}'"):
            module.bind(*inputs)
    case.assert_right(module.bind(a, b)(), case.expected(a, b))


@pytest.mark.behaviour(12)
@pytest.mark.parametrize("elements", [1, 3, 8, 15])
@pytest.mark.parametrize("kind", ["relu", "half", "two", "identity_int8", "identity_int64", "nonzero"])
def test_unaligned_inputs(make, elements, kind):
    """A contiguous input at any address is right, and TensorRT is given aligned addresses only."""
    case = make(kind)
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    for n in (3, 3, 1, 8):
        inputs = tuple(_unaligned(tensor, elements) for tensor in case.example(n))
        case.assert_right(module(*inputs), case.expected(*inputs))
    addresses = [address for _, address in calls.arguments("set_tensor_address")]
    assert addresses
    assert [address % case.alignment for address in addresses] == [0] * len(addresses)


@pytest.mark.behaviour(12)
def test_unaligned_scalar(make):
    """A zero-dimensional view into a larger tensor is right."""
    case = make("scalar")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    numbers = torch.randn(9, device=case.device)
    for number in numbers:
        case.assert_right(module(number), case.expected(number))
    assert all(address % case.alignment == 0 for _, address in calls.arguments("set_tensor_address"))


@pytest.mark.behaviour(12)
def test_the_first_rows_of_a_tensor(make):
    """x[1:] of a tensor whose rows are not a multiple of the alignment is right in every mode."""
    case = make("relu")
    module = case.module()
    (x,) = case.example(9)
    for mode in ("fresh", "pre_allocated", "out"):
        caller = Caller(module, mode)
        for first in range(4):
            expected = case.expected(x[first:])
            case.assert_right(caller((x[first:],), expected), expected)


@pytest.mark.behaviour(12)
def test_unaligned_or_strided_output_of_the_callers(make):
    """An out= that TensorRT could not write into is refused with its name, and nothing is written."""
    case = make("two")
    module = case.module()
    inputs = case.example(4)
    expected = case.expected(*inputs)
    good = torch.full_like(expected[0], 5)
    for bad in (_unaligned(expected[1], 1), _transposed(expected[1]), _every_other_column(expected[1])):
        before = bad.clone()
        with pytest.raises(ValueError, match=f"'{case.outputs[1]}'"):
            module(*inputs, out=(good, bad))
        assert torch.equal(bad, before)
        assert torch.equal(good, torch.full_like(good, 5))
    outputs = tuple(torch.empty_like(tensor) for tensor in expected)
    case.assert_right(module(*inputs, out=outputs), expected)
