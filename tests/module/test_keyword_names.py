"""Inputs are passed by keyword whatever their names are."""

from __future__ import annotations

import pytest
import torch

from trt_rt import InputError, TRTModule, reference


class Subtract(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


def module(*names: str) -> TRTModule:
    plan = reference.build(Subtract(), (torch.zeros(2), torch.zeros(2)), input_names=list(names))
    return TRTModule(plan)


@pytest.mark.parametrize(
    "names", [("self", "args"), ("inputs", "self"), ("kwargs", "self"), ("module", "names")]
)
@pytest.mark.parametrize("hooked", [False, True], ids=["direct", "through hooks"])
def test_any_name(names: tuple[str, str], hooked: bool) -> None:
    called = module(*names)
    if hooked:
        called.register_forward_hook(lambda *_: None)
    a, b = torch.randn(2), torch.randn(2)
    out = torch.empty(2)
    torch.testing.assert_close(called(**{names[0]: a, names[1]: b}), a - b)
    torch.testing.assert_close(called(**{names[1]: b, names[0]: a}, out=out), a - b)
    torch.testing.assert_close(called(a, **{names[1]: b}), a - b)
    torch.testing.assert_close(called.forward(a, **{names[1]: b}), a - b)
    torch.testing.assert_close(called.bind(**{names[0]: a, names[1]: b})(), a - b)


def test_one_that_is_passed_twice_is_refused() -> None:
    called = module("self", "b")
    a = torch.zeros(2)
    with pytest.raises(InputError, match="self"):
        called(a, a, self=a)
