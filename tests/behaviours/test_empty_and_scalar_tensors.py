"""Tensors without elements or without dimensions, engines without inputs or without outputs."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.modes import MODES, Caller
from tests.behaviours.recording import recorded

pytestmark = pytest.mark.behaviour(16)


@pytest.mark.parametrize("mode", MODES)
def test_no_elements(make, mode):
    """A batch of 0 gives outputs of batch 0, between and after other batches."""
    case = make("empty")
    caller = Caller(case.module(), mode)
    for n in (0, 3, 0, 0, 32, 0, 1):
        inputs = case.example(n)
        expected = case.expected(*inputs)
        assert expected[0].shape[0] == n
        case.assert_right(caller(inputs, expected), expected)


def test_no_elements_in_any_layout(make):
    """An empty view of anything is as good as an empty tensor; TensorRT, which wants an address, gets one."""
    case = make("empty")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    x = torch.randn(5, 8, device=case.device)
    for view in (x[:0, :4], x[2:2, ::2], x[5:, 1:5], x.t()[:0, :4], x[:1, :4].expand(0, 4)):
        case.assert_right(module(view), case.expected(view))
    named = calls.arguments("set_tensor_address")
    addresses = [address for _, address in named]
    assert {name for name, _ in named} == {*case.inputs, *case.outputs}
    assert all(addresses)
    assert [address % case.alignment for address in addresses] == [0] * len(addresses)


def test_an_empty_data_dependent_output(make):
    """An output that turns out to have no elements has its shape and no leftovers of the call before."""
    case = make("nonzero")
    module = case.module()
    (x,) = case.example(8)
    for inputs in ((x,), (torch.zeros_like(x),), (x,), (torch.zeros_like(x),)):
        case.assert_right(module(*inputs), case.expected(*inputs))


@pytest.mark.parametrize("mode", MODES)
def test_no_dimensions(make, mode):
    """Zero-dimensional inputs and outputs keep being so."""
    case = make("scalar")
    caller = Caller(case.module(), mode)
    for _ in range(3):
        inputs = case.example(1)
        expected = case.expected(*inputs)
        result = caller(inputs, expected)
        assert result.shape == ()
        case.assert_right(result, expected)


@pytest.mark.parametrize("mode", MODES)
def test_no_inputs(make, mode):
    """An engine without inputs is called without arguments."""
    case = make("no_inputs")
    caller = Caller(case.module(), mode)
    for _ in range(3):
        case.assert_right(caller((), case.expected()), case.expected())


@pytest.mark.parametrize("mode", MODES)
def test_no_outputs(make, mode):
    """An engine without outputs returns an empty tuple."""
    case = make("no_outputs")
    caller = Caller(case.module(), mode)
    for _ in range(3):
        assert caller(case.example(3), ()) == ()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_dynamic(make, mode):
    """An engine of constant shapes needs no profile."""
    case = make("static")
    caller = Caller(case.module(), mode)
    for _ in range(3):
        inputs = case.example(3)
        expected = case.expected(*inputs)
        case.assert_right(caller(inputs, expected), expected)
