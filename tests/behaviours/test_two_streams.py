"""Calls on several streams, with no order between them but the module's own."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.gate import gate

pytestmark = [pytest.mark.behaviour(4), pytest.mark.gpu]

_KINDS = pytest.mark.parametrize(
    "kind", ["relu", "two", "many", "slow", "nonzero", "shape_tensor", "profiles"]
)


@_KINDS
@pytest.mark.parametrize("with_default", [False, True])
def test_two_streams_take_turns(make, kind, with_default):
    """Calls that alternate between two streams, the default stream among them or not, are all right."""
    case = make(kind)
    module = case.module()
    first = torch.cuda.default_stream() if with_default else torch.cuda.Stream()
    streams = (first, torch.cuda.Stream())
    held = []
    for turn in range(40):
        with torch.cuda.stream(streams[turn % 2]):
            inputs = case.example((3, 8, 1)[turn % 3])
            held.append((module(*inputs), case.expected(*inputs)))
            del inputs
    for stream in streams:
        stream.synchronize()
    for result, expected in held:
        case.assert_right(result, expected)


@pytest.mark.parametrize("kind", ["relu", "two", "slow", "shape_tensor"])
def test_a_stream_that_is_behind(make, kind):
    """A call on one stream, while one on another stream waits, is right, and so is the one that waits."""
    case = make(kind)
    module = case.module()
    streams = (torch.cuda.Stream(), torch.cuda.Stream())

    def call(stream, n):
        with torch.cuda.stream(stream):
            inputs = case.example(n)
            return module(*inputs), case.expected(*inputs)

    for n in (3, 5):
        for stream in streams:
            call(stream, n)
    torch.cuda.synchronize()
    with gate(streams[0]) as closed:
        held = [call(streams[0], 3), call(streams[1], 5), call(streams[0], 5), call(streams[1], 3)]
        assert not closed.expired
    torch.cuda.synchronize()
    for result, expected in held:
        case.assert_right(result, expected)


def test_bound_calls_on_two_streams(make):
    """Bound calls of one module, used on two streams in turn, find their own tensors bound."""
    case = make("slow")
    module = case.module()
    streams = (torch.cuda.Stream(), torch.cuda.Stream())
    inputs = [case.example(n) for n in (3, 5)]
    bound = [module.bind(*tensors) for tensors in inputs]
    torch.cuda.synchronize()
    for _ in range(10):
        for stream, call in zip(streams, bound, strict=True):
            with torch.cuda.stream(stream):
                call.inputs[0].add_(1)
                call()
    torch.cuda.synchronize()
    for tensors, call in zip(inputs, bound, strict=True):
        case.assert_right(call.outputs, case.expected(*tensors))
