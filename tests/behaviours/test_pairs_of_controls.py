"""Controls nested in any order are right, or refused at entry with the reason."""

from __future__ import annotations

import contextlib
import itertools
import warnings

import pytest
import torch

from tests.behaviours.controls import BY_NAME, controllable, state
from tests.behaviours.graph_modes import Doubled
from trt_rt.module.composition import CONTROLS, EXCLUSIONS
from trt_rt.module.find_engines import find_engines

pytestmark = pytest.mark.behaviour(31)

_BATCHES = (8, 12, 12, 8, 8)


def _named(pairs):
    return [pytest.param(*pair, id=" ".join(pair)) for pair in pairs]


_PAIRS = list(itertools.product(CONTROLS, repeat=2))
_EVERY_PAIR = _named(_PAIRS)
_EVERY_WORKING_PAIR = _named(pair for pair in _PAIRS if frozenset(pair) not in EXCLUSIONS)


class _Program:
    """An engine by itself, or in a program with a PyTorch operator, next to the same in eager PyTorch."""

    def __init__(self, case, is_mixed):
        self._case = case
        self._factor = 2 if is_mixed else 1
        self._has_warned = False
        engine = case.module()
        self.module = Doubled(engine) if is_mixed else engine

    def check(self, *called):
        """Everything that can be called is right, for batches of changing size."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._check(*called)
        for warning in caught:  # of a control that rests meanwhile
            assert self._may_warn(), warning.message
            assert not self._has_warned
            assert "run without graphs" in str(warning.message)
            self._has_warned = True

    def _may_warn(self):
        engines = find_engines(self.module)
        return any(map(_uses_graphs, engines)) and any(each.engine.weight_budget.streams for each in engines)

    def _check(self, *called):
        for n in _BATCHES:
            inputs = self._case.example(n)
            expected = [output * self._factor for output in self._case.expected(*inputs)]
            for call in called:
                self._case.assert_right(call(*inputs), expected)


def _uses_graphs(module):
    return module.executors.uses_cuda_graphs or module.executors.modes.whole_graph


@pytest.fixture(params=[False, True], ids=["engine", "program"])
def program(make, request):
    return _Program(controllable(make("streaming")), request.param)


@pytest.mark.parametrize(("outer", "inner"), _EVERY_PAIR)
def test_every_pair_nested(program, outer, inner):
    """Within both calls are right, or the inner is refused and the outer goes on; then all is as before."""
    module, before = program.module, state(program.module)
    program.check(module)
    reason = EXCLUSIONS.get(frozenset((outer, inner)))
    with BY_NAME[outer](module) as first:
        program.check(first)
        between = state(module)
        if reason is None:
            # A module that a control gave stands for the program; a graph of it cannot be captured again.
            through = first if isinstance(first, torch.nn.Module) and inner != outer else module
            with BY_NAME[inner](through) as second:
                program.check(second, first)
        else:
            with pytest.raises(ValueError, match=r"^[^\n]+\.$"), BY_NAME[inner](module):
                pass
        assert state(module) == between
        program.check(first)
    assert state(module) == before
    program.check(module)


@pytest.mark.parametrize(("outer", "inner"), _EVERY_WORKING_PAIR)
def test_every_pair_left_by_an_exception(program, outer, inner):
    """An exception within both leaves both, and calls are right."""
    module, before = program.module, state(program.module)
    with contextlib.suppress(KeyError), BY_NAME[outer](module), BY_NAME[inner](module) as second:
        program.check(second)
        raise KeyError
    assert state(module) == before
    program.check(module)


@pytest.mark.parametrize(("outer", "inner"), _EVERY_WORKING_PAIR)
def test_every_pair_left_in_the_wrong_order(program, outer, inner):
    """Left first-in-first-out, calls are right after each, and in the end all is as before."""
    module, before = program.module, state(program.module)
    first, second = BY_NAME[outer](module), BY_NAME[inner](module)
    program.check(first.__enter__())
    called = second.__enter__()
    program.check(called)
    first.__exit__(None, None, None)
    program.check(called)
    second.__exit__(None, None, None)
    program.check(module)
    assert state(module) == before
