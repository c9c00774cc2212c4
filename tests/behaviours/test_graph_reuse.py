"""A graph is used for what it was captured for, and kept for it."""

from __future__ import annotations

import pytest
import torch

from tests.behaviours.graph_modes import GRAPH_MODES, graphed

_MODES = pytest.mark.parametrize("mode", GRAPH_MODES)
_KINDS = ["relu", "half", "two", "many", "shape_tensor", "shape_tensor32", "profiles", "static", "scalar"]


@pytest.mark.behaviour(7)
@_MODES
@pytest.mark.parametrize("kind", _KINDS)
def test_alternating_shapes(make, kind, mode):
    """A loop over several shapes captures in its first round only, and every result is right."""
    case = make(kind)
    inputs = [case.example(n) for n in (8, 3, 1, 5)]
    with graphed(case, mode) as graphs:
        held = [(graphs.check(*each), graphs.expected(*each)) for each in inputs]
        captures = graphs.captures
        for _ in range(3):
            held += [(graphs.check(*each), graphs.expected(*each)) for each in inputs]
        assert graphs.captures == captures
        for result, expected in held:
            case.assert_right(result, expected)


@pytest.mark.behaviour(7)
@_MODES
def test_inputs_at_ever_new_addresses(make, mode):
    """Inputs that never lie where others did are copied: captures end, and every result is right."""
    case = make("two")
    with graphed(case, mode) as graphs:
        inputs = [case.example(3) for _ in range(40)]
        for each in inputs[:20]:
            graphs.check(*each)
        captures = graphs.captures
        for each in inputs[20:]:
            graphs.check(*each)
        assert graphs.captures == captures


@pytest.mark.behaviour(7)
@_MODES
def test_graphs_are_bounded(make, mode):
    """More shapes than graphs: all stays right; the least recently used goes.

    An engine's goes for shapes that have come often enough to be worth a capture; a program's at once.
    """
    case = make("relu")
    with graphed(case, mode, max_graphs=2) as graphs:
        inputs = {n: case.example(n) for n in (1, 2, 3)}
        for n in (1, 2, 3, 1, 2, 3, 3, 2):
            graphs.check(*inputs[n])
        captures = graphs.captures
        assert captures == (2 if mode == "per_engine" else 6)
        for n in (2, 3) * 300:
            graphs.callable(*inputs[n])
        for n in (2, 3, 2, 3):
            graphs.check(*inputs[n])
        captures += mode == "per_engine"  # of 3, in place of 1
        assert graphs.captures == captures


@pytest.mark.behaviour(6)
@_MODES
def test_new_values_of_a_shape_tensor(make, mode):
    """The values of a shape tensor are baked into a graph: another value is another graph."""
    case = make("shape_tensor")
    with graphed(case, mode) as graphs:
        x, _ = case.example(4)
        s = torch.tensor([4])
        for value in (4, 2, 4, 9, 2):
            s.fill_(value)
            assert graphs.check(x, s).shape == (value,)


@pytest.mark.behaviour(6)
@_MODES
@pytest.mark.parametrize(
    "change",
    [
        {"optimization_profile": 1},
        {"dynamic_resources": True},
        {"pre_allocated_outputs": 1},
        {"pre_allocated_outputs": 3},
    ],
    ids=lambda change: "{}={}".format(*next(iter(change.items()))),
)
def test_modes_that_change(make, mode, change):
    """What a graph has baked in changes: it is captured anew, then replayed, and all is right."""
    case = make("profiles")
    with graphed(case, mode) as graphs:
        inputs = case.example(8)  # profile 1
        graphs.check(*inputs)
        graphs.check(*inputs)
        before = graphs.engine.executors.modes
        for changes in (change, {name: getattr(before, name) for name in change}):
            captures = graphs.captures
            graphs.engine.executors.change(**changes)
            for _ in range(3):
                graphs.check(*inputs)
            assert graphs.captures > captures


@pytest.mark.behaviour(6)
@_MODES
def test_contexts_that_are_made_anew(make, mode):
    """Whatever needs an engine without contexts takes graphs with them; the next call captures another."""
    case = make("relu")
    with graphed(case, mode) as graphs:
        inputs = case.example(3)
        for _ in range(3):
            graphs.check(*inputs)
            graphs.check(*inputs)
            graphs.engine.engine.run_without_contexts(lambda _: None)
        graphs.check(*inputs)


@pytest.mark.behaviour(6)
@_MODES
def test_aliased_addresses(make, mode):
    """Two caches in turn: the engine writes into the one of the call."""
    case = make("aliased")
    with graphed(case, mode) as graphs:
        caches = [case.example(8)[0] for _ in range(3)]
        wanted = [cache.clone() for cache in caches]
        for step in range(12):
            x = case.example(8)[1]
            turn = step % len(caches)
            wanted[turn] += x
            graphs.callable(caches[turn], x)
            for cache, expected in zip(caches, wanted, strict=True):
                torch.testing.assert_close(cache, expected)


@pytest.mark.behaviour(6)
def test_parameters_that_are_replaced(make):
    """A program's graph reads the parameter that the program has now."""
    case = make("relu")
    with graphed(case, "whole") as graphs:
        (x,) = case.example(3)
        program = graphs.callable.program
        for value in (2.0, 3.0, -1.0):
            program.factor = torch.nn.Parameter(torch.tensor(value, device=x.device), requires_grad=False)
            for _ in range(2):
                case.assert_right(graphs.callable(x), [case.expected(x)[0] * value])
            program.factor.data = torch.tensor(value + 1, device=x.device)
            case.assert_right(graphs.callable(x), [case.expected(x)[0] * (value + 1)])
            program.factor.fill_(7.0)
            case.assert_right(graphs.callable(x), [case.expected(x)[0] * 7])


@pytest.mark.behaviour(7)
@_MODES
def test_a_caller_that_writes_into_static_inputs(make, mode):
    """Calls with graph_inputs read what was written there, and capture nothing after the first."""
    case = make("two")
    with graphed(case, mode) as graphs:
        graphs.check(*case.example(3))
        static = graphs.callable.graph_inputs
        graphs.check(*static)
        captures = graphs.captures
        for _ in range(5):
            for tensor, value in zip(static, case.example(3), strict=True):
                tensor.copy_(value)
            graphs.check(*static)
        assert graphs.captures == captures


@pytest.mark.behaviour(2)
@_MODES
def test_results_of_graphs_are_kept(make, mode):
    """A result that is held is not overwritten by later calls, whatever their shapes."""
    case = make("many")
    with graphed(case, mode) as graphs:
        held = []
        for n in (3, 8, 3, 3, 8, 1, 3):
            inputs = case.example(n)
            held.append((graphs.check(*inputs), graphs.expected(*inputs)))
        for result, expected in held:
            case.assert_right(result, expected)


@pytest.mark.behaviour(8)
@_MODES
def test_a_failed_call_leaves_graphs_right(make, mode):
    """After a call with an argument that is refused the next good call is right."""
    case = make("relu")
    with graphed(case, mode) as graphs:
        (x,) = case.example(3)
        for _ in range(2):
            with pytest.raises(Exception, match="x"):
                graphs.callable(x.half())
            graphs.check(x)
            graphs.check(*case.example(5))


@pytest.mark.behaviour(8)
@_MODES
def test_an_engine_that_fails_leaves_graphs_right(make, mode):
    """After a run that TensorRT refuses the next good call is right."""
    case = make("fails_if_negative")
    if case.device.type != "cpu":
        pytest.skip("on a GPU an engine whose success depends on data cannot be captured")
    with graphed(case, mode) as graphs:
        (x,) = case.example(3)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="TensorRT says"):
                graphs.callable(-x)
            graphs.check(x)
            graphs.check(*case.example(5))
