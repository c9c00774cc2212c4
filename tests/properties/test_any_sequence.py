"""One module, every kind of call in any order: every good call is right, and what callers hold stays."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import nn

from tests.properties.examples import examples
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import InputError, TRTModule

LARGEST_BATCH = 32
WIDTH = 7
GOOD = torch.ones(3, WIDTH)


def values(count: int) -> torch.Tensor:
    """Different everywhere, of both signs, the same every time."""
    return torch.arange(count, dtype=torch.float32).mul_(7).remainder_(13).sub_(6)


BAD_ARGUMENTS = {
    "None": lambda: (None,),
    "nothing": lambda: (),
    "too many": lambda: (GOOD, GOOD),
    "width": lambda: (torch.zeros(3, WIDTH + 1),),
    "batch": lambda: (torch.zeros(LARGEST_BATCH + 1, WIDTH),),
    "empty": lambda: (torch.zeros(0, WIDTH),),
    "dtype": lambda: (GOOD.double(),),
    "meta": lambda: (GOOD.to("meta"),),
    "ninth dimension": lambda: (torch.zeros((1,) * 9),),
    "strided and wrong": lambda: (torch.zeros(9, 3).t(),),
}

LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t().contiguous().t(),
    "misaligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "negative": lambda x: torch._neg_view(-x),
    "parameter": lambda x: nn.Parameter(x),
    "NumPy": lambda x: x.numpy(),
}

CHANGES = {
    "unsqueeze_": lambda result: result.unsqueeze_(0),
    "t_": lambda result: result.t_(),
    "resize_": lambda result: result.resize_(1, 2),
    "resize_(0)": lambda result: result.resize_(0),
    "set_": lambda result: result.set_(torch.zeros(2, 2)),
    "data": lambda result: setattr(result, "data", torch.zeros_like(result)),
    "fill_": lambda result: result.fill_(99),
}


class AnyOrder(RuleBasedStateMachine):
    """One module, every kind of call, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.module = TRTModule(plans.profiles())
        self.step = 0
        self.fresh: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=8)
        self.buffers = 0
        self.reused: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=1)
        self.bound: list[list[Any]] = []  # input, call, what its outputs hold
        self.last_input = self.new_input(3)

    def new_input(self, batch: int) -> torch.Tensor:
        self.step += 1
        return values(batch * WIDTH).add_(self.step % 5).mul_(-1 if self.step % 2 else 1).view(batch, WIDTH)

    def call(self, argument: Any, x: torch.Tensor) -> None:
        result = self.module(argument)
        expected = eager_affine(x.detach().clone())
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
        assert not result.requires_grad
        (self.reused if self.buffers else self.fresh).append((result, expected))

    @rule(batch=st.sampled_from([1, 3, 4, 5, 32]), layout=st.sampled_from(list(LAYOUTS)))
    def good_call(self, batch: int, layout: str) -> None:
        self.last_input = self.new_input(batch)
        self.call(LAYOUTS[layout](self.last_input), self.last_input)

    @rule(write=st.booleans())
    def same_tensor_again(self, write: bool) -> None:
        if write:
            self.last_input.add_(1)
        self.call(self.last_input, self.last_input)

    @rule(batch=st.sampled_from([2, 3, 6]))
    def same_tensor_reshaped(self, batch: int) -> None:
        self.last_input.set_(self.new_input(batch))
        self.call(self.last_input, self.last_input)

    @rule(kind=st.sampled_from(list(BAD_ARGUMENTS)), bind=st.booleans())
    def bad_call(self, kind: str, bind: bool) -> None:
        with pytest.raises(InputError):
            (self.module.bind if bind else self.module)(*BAD_ARGUMENTS[kind]())

    @rule(batch=st.sampled_from([1, 3, 8]))
    def call_with_out(self, batch: int) -> None:
        x = self.new_input(batch)
        out = torch.empty(batch, WIDTH)
        assert self.module(x, out=out) is out
        torch.testing.assert_close(out, eager_affine(x), rtol=0, atol=0)
        self.fresh.append((out, eager_affine(x)))

    @rule(batch=st.sampled_from([1, 3, 8]))
    def call_with_bad_out(self, batch: int) -> None:
        x = self.new_input(batch)
        with pytest.raises(InputError):
            self.module(x, out=torch.empty(batch + 1, WIDTH))

    @precondition(lambda self: len(self.bound) < 4)
    @rule(batch=st.sampled_from([1, 3, 5]), own_out=st.booleans())
    def bind(self, batch: int, own_out: bool) -> None:
        x = self.new_input(batch)
        out = torch.empty(batch, WIDTH) if own_out else None
        call = self.module.bind(x, out=out)
        call()
        self.bound.append([x, call, eager_affine(x)])

    @precondition(lambda self: self.bound)
    @rule(index=st.integers(0, 3), write=st.booleans())
    def bound_call(self, index: int, write: bool) -> None:
        entry = self.bound[index % len(self.bound)]
        x, call, _ = entry
        if write:
            x.add_(1)
        call()
        entry[2] = eager_affine(x)

    @precondition(lambda self: self.bound)
    @rule(index=st.integers(0, 3))
    def drop_bound(self, index: int) -> None:
        del self.bound[index % len(self.bound)]

    @rule(buffers=st.integers(0, 3))
    def set_pre_allocated_outputs(self, buffers: int) -> None:
        self.module.set_pre_allocated_outputs(buffers > 0, buffers=max(buffers, 1))
        self.buffers = buffers
        # What was handed out stays: the memory belongs to the results that are held.
        self.fresh.extend(self.reused)
        self.reused = deque(maxlen=buffers)

    @precondition(lambda self: self.reused)
    @rule(change=st.sampled_from(list(CHANGES)))
    def change_reused_result(self, change: str) -> None:
        CHANGES[change](self.reused[-1][0])
        self.reused.clear()

    @invariant()
    def held_results_are_as_they_were(self) -> None:
        for result, expected in (*self.fresh, *self.reused):
            torch.testing.assert_close(result, expected, rtol=0, atol=0)

    @invariant()
    def bound_results_are_as_of_their_last_call(self) -> None:
        for _, call, expected in self.bound:
            torch.testing.assert_close(call.outputs, expected, rtol=0, atol=0)


AnyOrder.TestCase.settings = examples(60, stateful_step_count=30)
test_any_order = AnyOrder.TestCase
