"""No memory is left behind on a GPU."""

from __future__ import annotations

import gc

import pytest
import torch

import trt_rt
from tests.behaviours.modes import MODES, Caller

pytestmark = [pytest.mark.behaviour(33), pytest.mark.gpu]


def _in_use() -> tuple[int, int]:
    """Bytes of tensors, and of the caching allocator, once nothing is pending or cached."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("default_stream", [False, True])
def test_ten_thousand_calls(make, mode, default_stream):
    """Ten thousand calls, some with inputs that are copied, take no memory that they do not give back."""
    case = make("two")
    caller = Caller(case.module(), mode)
    a, b = case.example(3)
    strided = b if mode == "bound" else b.t().contiguous().t()
    expected = case.expected(a, b)
    stream = torch.cuda.default_stream() if default_stream else torch.cuda.Stream()
    torch.cuda.synchronize()

    def calls(number: int) -> None:
        with torch.cuda.stream(stream):
            for _ in range(number // 2):
                caller((a, b), expected)
                caller((a, strided), expected)

    calls(100)
    before = _in_use()
    calls(10_000)
    assert _in_use() == before


def test_data_dependent_calls(make):
    """The same for outputs that TensorRT allocates."""
    case = make("nonzero")
    module = case.module()
    inputs = [case.example(n) for n in (1, 3, 32)]
    for _ in range(20):
        for tensors in inputs:
            module(*tensors)
    before = _in_use()
    for _ in range(1000):
        for tensors in inputs:
            module(*tensors)
    assert _in_use() == before


@pytest.mark.parametrize("kind", ["two", "nonzero", "streaming", "shape_tensor"])
@pytest.mark.parametrize("close", [False, True])
def test_loading_and_deleting(make, kind, close):
    """An engine that was deleted, or closed, has given back all its memory; so has one in a cycle."""
    case = make(kind)
    inputs = case.example(3)

    def load() -> None:
        module = case.module()
        module.set_pre_allocated_outputs(True)
        bound = module.bind(*inputs)
        module(*inputs)
        bound()
        module.itself = [module, bound]
        if close:
            module.engine.close()

    load()
    before = _in_use()
    for _ in range(10):
        load()
        assert _in_use() == before


def test_failures(make):
    """Calls that fail give back what they took."""
    case = make("fails_if_negative")
    module = case.module()
    (x,) = case.example(3)

    negative = -x

    def fail() -> None:
        with pytest.raises(trt_rt.ExecutionError):
            module(negative)
        for bad in (x.half(), x.t()):
            with pytest.raises(trt_rt.InputError):
                module(bad)

    fail()
    before = _in_use()
    for _ in range(200):
        fail()
    assert _in_use() == before
