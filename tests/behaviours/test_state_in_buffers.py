"""State that an engine keeps in its buffers advances one step a call, warm-up included."""

from __future__ import annotations

import pytest
import torch

from trt_rt.runtime import enable_cudagraphs

pytestmark = pytest.mark.behaviour(10)


class _Counting(torch.nn.Module):
    """A program that keeps state of its own, and a cache that its engine writes into."""

    def __init__(self, engine, cache):
        super().__init__()
        self.engine = engine
        self.register_buffer("cache", cache)
        self.register_buffer("calls", torch.zeros((), device=cache.device))

    def forward(self, x):
        self.calls += 1
        return self.engine(self.cache, x) * 2, self.calls


@pytest.mark.parametrize("whole_graph", [True, False])
def test_a_cache_in_a_buffer_of_the_program(make, whole_graph):
    """A cache and a counter that are buffers of the program advance by one step in every call."""
    case = make("aliased")
    cache, x = case.example(8)
    program = _Counting(case.module(), cache)
    wanted = cache.clone()
    with enable_cudagraphs(program, whole_graph=whole_graph) as run:
        for step in range(1, 8):
            wanted += x
            doubled, calls = run(x)
            torch.testing.assert_close(doubled, wanted * 2)
            torch.testing.assert_close(cache, wanted)
            assert calls.item() == program.calls.item() == step


@pytest.mark.parametrize("whole_graph", [True, False])
def test_a_cache_that_is_an_argument(make, whole_graph):
    """The caller's cache advances by one step in the call that captures, and in those that replay."""
    case = make("aliased")
    cache, _ = case.example(8)
    wanted = cache.clone()
    with enable_cudagraphs(case.module(), whole_graph=whole_graph) as run:
        for _ in range(8):
            x = case.example(8)[1]
            wanted += x
            torch.testing.assert_close(run(cache, x), wanted)
            torch.testing.assert_close(cache, wanted)


def test_an_argument_that_pytorch_writes_into(make):
    """What a captured program writes into its argument is found there by the caller."""
    case = make("relu")

    class Program(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.engine = case.module()

        def forward(self, x, total):
            total += x.sum()
            return self.engine(x)

    (x,) = case.example(3)
    total = torch.zeros((), device=x.device)
    with enable_cudagraphs(Program(), whole_graph=True) as run:
        for step in range(1, 5):
            case.assert_right(run(x, total), case.expected(x))
            torch.testing.assert_close(total, x.sum() * step)


@pytest.mark.parametrize("bound", [True, False])
def test_one_engine_by_itself(make, bound):
    """Calls, and bound calls, of an engine with a cache."""
    case = make("aliased")
    cache, x = case.example(8)
    wanted = cache.clone()
    module = case.module()
    with enable_cudagraphs(module):
        call = module.bind(cache, x) if bound else lambda: module(cache, x)
        for _ in range(5):
            wanted += x
            torch.testing.assert_close(call(), wanted)
            torch.testing.assert_close(cache, wanted)
