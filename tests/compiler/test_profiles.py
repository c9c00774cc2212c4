"""The profile that dynamic shapes ask for, and profiles that go beyond them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.export import Dim

from tests.compiler.models import DYNAMIC, EXAMPLE, Scale, exported
from trt_rt import CompileError, InputError, ProfileRange, TRTModule, build
from trt_rt.backend import Backend, load
from trt_rt.compiler import build_plan, export_onnx


class Join(torch.nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return torch.cat([first, second]) + 1


def test_a_derived_dimension_has_the_range_of_what_it_is_derived_from(rtx: Backend) -> None:
    rows = Dim("rows", min=2, max=8)
    inputs = (torch.ones(3, 4), torch.ones(6, 4))
    built = build_plan(
        Join(), inputs, dynamic_shapes={"first": {0: rows}, "second": {0: 2 * rows}}, backend=rtx
    )
    first, second, _ = built.io
    assert first.profiles == (ProfileRange((2, 4), (3, 4), (8, 4)),)
    assert second.profiles == (ProfileRange((4, 4), (6, 4), (16, 4)),)


def test_a_static_model_has_no_profile(rtx: Backend) -> None:
    assert build_plan(Scale().eval(), EXAMPLE, backend=rtx).io[0].profiles == ()


def test_a_dimension_without_an_end_needs_one(rtx: Backend) -> None:
    with pytest.raises(CompileError, match="dimension 0 of input 'x' is dynamic and has no largest size"):
        build(Scale().eval(), EXAMPLE, dynamic_shapes={"x": {0: Dim.DYNAMIC}}, backend=rtx)
    profiles: list[Any] = [{"x": ((2, 4), (3, 4), (100, 4))}]
    assert build(
        Scale().eval(), EXAMPLE, dynamic_shapes={"x": {0: Dim.DYNAMIC}}, profiles=profiles, backend=rtx
    )


@pytest.mark.parametrize("backend", ["tensorrt_rtx", "reference"])
def test_a_profile_beyond_the_dynamic_shapes_is_refused(rtx: Backend, backend: str) -> None:
    profiles: list[Any] = [{"x": ((1, 4), (3, 4), (16, 4))}, {"x": ((1, 4), (3, 4), (17, 4))}]
    with pytest.raises(CompileError, match=r"profile 1 .*17, 4.*16, 4.*widen dynamic_shapes"):
        build(exported(), profiles=profiles, backend=backend)


def test_an_example_outside_the_dynamic_shapes_is_refused() -> None:
    with pytest.raises(CompileError, match=r"cannot export Scale: .*17 not in range"):
        build(Scale().eval(), (torch.ones(17, 4),), dynamic_shapes=DYNAMIC)


def test_an_input_outside_the_profile_is_refused_when_called() -> None:
    module = TRTModule(build(exported(), backend=load("reference")))
    assert module(torch.ones(16, 4)).shape == (16, 4)
    with pytest.raises(InputError, match=r"x.*17.*\[1, 4\] to \[16, 4\]"):
        module(torch.ones(17, 4))


def test_a_range_has_three_shapes(rtx: Backend) -> None:
    profiles: list[Any] = [{"x": ((1, 4), (16, 4))}]
    onnx_model = export_onnx(exported())
    with pytest.raises(CompileError, match="a range is three shapes"):
        build(onnx_model, profiles=profiles, backend=rtx)
