"""``module(*inputs, out=...)`` writes into the caller's tensors, or refuses them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.odd_tensors import Wrapper, shifted
from tests.reference import plans
from tests.reference.plans import eager_affine
from trt_rt import InputError, TRTModule
from trt_rt.errors import InputValueError


def test_out_takes_a_tensor_or_a_sequence(module: TRTModule, two: TRTModule, x: torch.Tensor) -> None:
    out = torch.empty(3, 7)
    assert module(x, out=out) is out
    torch.testing.assert_close(out, eager_affine(x))
    for sequence in ((out,), [out]):
        out.zero_()
        assert module(x, out=sequence) is sequence
        torch.testing.assert_close(out, eager_affine(x))
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    pair = [torch.empty(2, 3), torch.empty(2, 3)]
    assert two(a, b=b, out=pair) is pair
    torch.testing.assert_close(pair, [a + b, b + 1])


def test_out_none_is_no_out(module: TRTModule, x: torch.Tensor) -> None:
    torch.testing.assert_close(module(x, out=None), eager_affine(x))


def test_out_is_used_in_every_mode(module: TRTModule, x: torch.Tensor) -> None:
    module.set_pre_allocated_outputs(True)
    held = module(x)
    out = torch.empty(3, 7)
    y = torch.randn(3, 7)
    module(y, out=out)
    torch.testing.assert_close(out, eager_affine(y))
    torch.testing.assert_close(held, eager_affine(x))
    torch.testing.assert_close(module(x), eager_affine(x))


BAD_OUT = {
    "an int": lambda x: 3,
    "a list of ints": lambda x: [3],
    "a string": lambda x: "out",
    "[None]": lambda x: [None],
    "nothing": lambda x: (),
    "one too many": lambda x: [torch.empty(3, 7), torch.empty(3, 7)],
    "nested": lambda x: [[torch.empty(3, 7)]],
    "a NumPy array": lambda x: [torch.empty(3, 7).numpy()],
    "one row more": lambda x: torch.empty(4, 7),
    "one dimension more": lambda x: torch.empty(1, 3, 7),
    "flat": lambda x: torch.empty(21),
    "another dtype": lambda x: torch.empty(3, 7, dtype=torch.float64),
    "another dtype of the same size": lambda x: torch.empty(3, 7, dtype=torch.int32),
    "meta": lambda x: torch.empty(3, 7, device="meta"),
    "the input": lambda x: x,
    "a view of the input": lambda x: x.detach(),
    "misaligned": lambda x: shifted(3, 7),
    "transposed": lambda x: torch.empty(7, 3).t(),
    "expanded": lambda x: torch.empty(1, 7).expand(3, 7),
    "with gaps": lambda x: torch.empty(3, 8)[:, :7],
    "negative": lambda x: torch._neg_view(torch.empty(3, 7)),
    "sparse": lambda x: torch.zeros(3, 7).to_sparse(),
    "a subclass with its own dispatch": lambda x: Wrapper(torch.empty(3, 7)),
}


@pytest.mark.parametrize("make_out", BAD_OUT.values(), ids=BAD_OUT.keys())
@pytest.mark.parametrize("warm", [False, True], ids=["first call", "later call"])
def test_an_out_that_does_not_fit(module: TRTModule, x: torch.Tensor, make_out: Any, warm: bool) -> None:
    if warm:
        module(x, out=torch.empty(3, 7))
    before = x.clone()
    with pytest.raises(InputError) as error:
        module(x, out=make_out(x))
    assert "out" in str(error.value)
    torch.testing.assert_close(x, before)
    torch.testing.assert_close(module(x), eager_affine(x))


def test_an_out_that_overlaps(two: TRTModule) -> None:
    a, b = torch.randn(16, 3), torch.randn(16, 3)
    memory = torch.empty(2, 32, 3)
    apart = (memory[0, :16], memory[1, :16])
    torch.testing.assert_close(two(a, b, out=apart), (a + b, b + 1))
    whole = torch.empty(64, 3)
    for bad in (
        (a, torch.empty(16, 3)),
        (torch.empty(16, 3), b),
        (apart[0], apart[0]),
        (whole[:16], whole[:16].detach()),
        (whole[0:16], torch.as_strided(whole, (16, 3), (3, 1), 16)),  # half of the same memory
    ):
        with pytest.raises(InputValueError, match="overlaps"):
            two(a, b, out=bad)
    # One ends where the other begins.
    torch.testing.assert_close(two(a, b, out=(whole[:16], whole[16:32])), (a + b, b + 1))
    torch.testing.assert_close(two(whole[:16], b, out=(whole[16:32], whole[32:48]))[1], b + 1)


def test_out_for_outputs_that_tensorrt_allocates() -> None:
    made = TRTModule(plans.nonzero())
    x = torch.eye(5)
    with pytest.raises(InputValueError, match="out= cannot be used"):
        made(x, out=(torch.empty(5, 2, dtype=torch.int64), torch.empty(5, 5)))
    torch.testing.assert_close(made(x), (torch.nonzero(x), x * 2))


def test_out_for_an_aliased_output() -> None:
    made = TRTModule(plans.accumulate(), aliased_outputs="return")
    cache, x = torch.randn(8, 4), torch.randn(8, 4)
    names = made.output_binding_names
    expected = cache + x
    outs = {"output0": torch.empty(8, 4), "cache_out": cache}
    made(cache, x, out=[outs[name] for name in names])
    torch.testing.assert_close(cache, expected)
    torch.testing.assert_close(outs["output0"], x * 2)
    outs["cache_out"] = torch.empty(8, 4)
    with pytest.raises(InputValueError, match="'cache'"):
        made(cache, x, out=[outs[name] for name in names])
    torch.testing.assert_close(cache, expected)
