"""What the caller still holds is overwritten only where the mode says so."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch

from tests.behaviours.graph_modes import graphed
from trt_rt.runtime import enable_pre_allocated_outputs

pytestmark = pytest.mark.behaviour(2)


@pytest.mark.parametrize("kind", ["relu", "two", "many", "nonzero", "shape_tensor", "scalar"])
def test_fresh_outputs_stay(make, kind):
    """Results of ordinary calls keep their values however many calls follow."""
    case = make(kind)
    module = case.module()
    held = []
    for n in (3, 3, 5, 3, 5, 5, 1, 3):
        inputs = case.example(n)
        held.append((module(*inputs), case.expected(*inputs)))
    for result, expected in held:
        case.assert_right(result, expected)


def test_a_view_keeps_its_result(make):
    """A view of a result keeps its memory when the result itself is gone."""
    case = make("relu")
    module = case.module()
    inputs = case.example(4)
    view = module(*inputs)[1:3]
    later = [module(*case.example(4)) for _ in range(8)]
    torch.testing.assert_close(view, case.expected(*inputs)[0][1:3])
    assert len(later) == 8


def test_outputs_of_one_call_are_apart(make):
    """The outputs of one call share no memory with each other or with inputs, pre-allocated or not."""
    case = make("many")
    module = case.module()
    for pre_allocated in (False, True):
        module.set_pre_allocated_outputs(pre_allocated)
        inputs = case.example(2)
        tensors = (*inputs, *module(*inputs))
        spans = sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in tensors)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


@contextlib.contextmanager
def _switched_on(case, way, buffers):
    """A function to call, with pre-allocated outputs switched on in one way, and what it must return."""
    if way == "whole program":
        with graphed(case, "whole") as graphs:
            graphs.engine.set_pre_allocated_outputs(True, buffers=buffers)
            yield graphs.callable, graphs.expected
        return
    module = case.module()
    if way == "method":
        module.set_pre_allocated_outputs(True, buffers=buffers)
        yield module, case.expected
        return
    with enable_pre_allocated_outputs(module, buffers=buffers) as called:
        yield called, case.expected


@pytest.mark.parametrize("kind", ["relu", "two", "many"])
@pytest.mark.parametrize("buffers", [1, 2, 3, 5])
@pytest.mark.parametrize("way", ["method", "context manager", "whole program"])
def test_pre_allocated_outputs_stay_as_long_as_promised(make, kind, buffers, way):
    """With k sets of buffers the last k results are whole, with views of them; then memory is reused."""
    case = make(kind)
    held = []
    with _switched_on(case, way, buffers) as (call, expect):
        for _ in range(3 * buffers):
            inputs = case.example(3)
            result, expected = call(*inputs), expect(*inputs)
            held.append((result if isinstance(result, tuple) else (result,), expected))
            for outputs, wanted in held[-buffers:]:
                for output, value in zip(outputs, wanted, strict=True):
                    torch.testing.assert_close(output, value)
                    torch.testing.assert_close(output[1:], value[1:])
    addresses = [tuple(output.data_ptr() for output in outputs) for outputs, _ in held]
    assert addresses[:buffers] == addresses[buffers : 2 * buffers] == addresses[2 * buffers :]
    assert len(set(addresses)) == buffers


@pytest.mark.parametrize("kind", ["relu", "two"])
def test_switching_the_mode_lets_go_of_results(make, kind):
    """A pre-allocated result held across switching the mode off, and on again, is not written any more."""
    case = make(kind)
    module = case.module()
    held = []
    for pre_allocated in (True, False, True, True, False):
        module.set_pre_allocated_outputs(pre_allocated)
        inputs = case.example(3)
        held.append((module(*inputs), case.expected(*inputs)))
    for result, expected in held:
        case.assert_right(result, expected)


def test_ordinary_calls_do_not_write_into_a_bound_calls_outputs(make):
    """Only a bound call itself overwrites its outputs."""
    case = make("two")
    module = case.module()
    inputs = case.example(3)
    bound = module.bind(*inputs)
    result = bound()
    for pre_allocated in (False, True):
        module.set_pre_allocated_outputs(pre_allocated)
        for _ in range(3):
            module(*case.example(3))
    case.assert_right(result, case.expected(*inputs))


def test_callers_outputs_are_written_once(make):
    """Tensors given as out= are written by that call and by none after it."""
    case = make("relu")
    module = case.module()
    inputs = case.example(3)
    out = torch.empty_like(case.expected(*inputs)[0])
    assert module(*inputs, out=out) is out
    for _ in range(3):
        module(*case.example(3))
    case.assert_right(out, case.expected(*inputs))
