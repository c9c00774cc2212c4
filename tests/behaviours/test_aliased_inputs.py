"""An input that the engine writes into is the caller's own memory, or refused."""

from __future__ import annotations

import pytest
import torch

import trt_rt
from tests.behaviours.modes import MODES
from tests.behaviours.recording import recorded

pytestmark = pytest.mark.behaviour(14)


@pytest.mark.parametrize("mode", MODES)
def test_the_write_reaches_the_caller(make, mode):
    """The new value is in the caller's tensor, and the output is that tensor, whatever mode is on."""
    case = make("aliased")
    module = case.module()
    module.set_pre_allocated_outputs(mode == "pre_allocated")
    cache, _ = case.example(1)
    for _ in range(3):
        _, x = case.example(1)
        expected = case.expected(cache, x)
        if mode == "out":
            result = module(cache, x, out=cache)
        elif mode == "bound":
            result = module.bind(cache, x)()
        else:
            result = module(cache, x)
        assert result.data_ptr() == cache.data_ptr()
        case.assert_right(result, expected)
        case.assert_right(cache, expected)


def test_caches_change_places(make):
    """Each call writes into the cache it was given, also when two are used in turn."""
    case = make("aliased")
    module = case.module()
    caches = [case.example(1)[0] for _ in range(2)]
    for turn in range(6):
        _, x = case.example(1)
        other = caches[1 - turn % 2].clone()
        expected = case.expected(caches[turn % 2], x)
        case.assert_right(module(caches[turn % 2], x), expected)
        case.assert_right(caches[turn % 2], expected)
        assert torch.equal(caches[1 - turn % 2], other)


def test_a_bound_call_updates_its_cache(make):
    """Every call of a bound call writes into the cache once more."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    bound = module.bind(cache, x)
    for _ in range(3):
        expected = case.expected(cache, x)
        case.assert_right(bound(), expected)
        case.assert_right(cache, expected)


@pytest.mark.parametrize(
    "copy_needed",
    [
        pytest.param(lambda t: t.t().contiguous().t(), id="transposed"),
        pytest.param(lambda t: torch.cat([t, t], dim=1)[:, ::2], id="strided"),
        pytest.param(lambda t: t[:1].expand_as(t), id="expanded"),
        pytest.param(lambda t: torch.cat([t.flatten(), t[0]])[1 : t.numel() + 1].view_as(t), id="unaligned"),
        pytest.param(lambda t: torch._neg_view(t), id="negated"),
    ],
)
def test_what_would_be_copied_is_refused(make, copy_needed):
    """Where only a copy could be bound the call is refused, and neither cache nor context is touched."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    module(cache, x)
    bad = copy_needed(cache)
    before = bad.clone()
    with pytest.raises(trt_rt.InputError, match="'cache'"):
        module(bad, x)
    assert torch.equal(bad, before)
    expected = case.expected(cache, x)
    case.assert_right(module(cache, x), expected)


def test_the_other_input_may_be_copied(make):
    """Only the input that is written into must be the caller's memory."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    strided = x.t().contiguous().t()
    expected = case.expected(cache, strided)
    case.assert_right(module(cache, strided), expected)
    case.assert_right(cache, expected)


@pytest.mark.parametrize("wrap", [torch.nn.Parameter, torch.nn.Buffer])
def test_a_parameter_as_cache(make, wrap):
    """A cache that is a module's parameter or buffer is written into as well."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    held = wrap(cache)
    expected = case.expected(held, x)
    module(held, x)
    case.assert_right(held.data, expected)


def test_an_output_of_other_memory_is_refused(make):
    """An out= that is not the input it must lie in is refused, with the input's name."""
    case = make("aliased")
    module = case.module()
    cache, x = case.example(1)
    before = cache.clone()
    with pytest.raises(trt_rt.InputError, match="'cache'"):
        module(cache, x, out=torch.empty_like(cache))
    assert torch.equal(cache, before)


def test_a_failed_call_does_not_write(make):
    """A call that TensorRT refuses to run leaves the cache as it was."""
    case = make("aliased")
    backend, calls = recorded(case.backend)
    module = case.module(backend)
    cache, x = case.example(1)
    module(cache, x)
    before = cache.clone()
    with calls.failing("execute_async_v3"), pytest.raises(trt_rt.ExecutionError):
        module(cache, x)
    assert torch.equal(cache, before)
    expected = case.expected(cache, x)
    case.assert_right(module(cache, x), expected)
