"""One tensor given as two inputs of a model: torch.export takes them for one input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trt_rt
from trt_rt import ArchiveError, CompileError, TRTModule


class Difference(torch.nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first - 2 * second


class Offset(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.arange(12.0).reshape(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - 2 * self.offset


class Accumulate(torch.nn.Module):
    def forward(self, total: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        total.add_(1)
        return total + x


def built(model: Any, *args: Any, **options: Any) -> Callable[..., Any]:
    return TRTModule(trt_rt.build(model, args, backend="reference", **options), device="cpu")


def built_by_reference(model: Any, *args: Any, **options: Any) -> Callable[..., Any]:
    return TRTModule(trt_rt.reference.build(model, args, **options), device="cpu")


def compiled(model: Any, *args: Any, **options: Any) -> Callable[..., Any]:
    return trt_rt.compile(model, inputs=args, backend="reference", min_block_size=1, **options)


WAYS = pytest.mark.parametrize("make", [built, built_by_reference, compiled])


def example() -> torch.Tensor:
    return torch.linspace(-1, 1, 12).reshape(3, 4)


@WAYS
def test_one_tensor_as_two_inputs(make: Callable[..., Any]) -> None:
    same = example()
    module = make(Difference(), same, same)
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(module(first, second), first - 2 * second)
    torch.testing.assert_close(module(first, first), -first)


@WAYS
def test_one_tensor_by_position_and_by_keyword(make: Callable[..., Any]) -> None:
    same = example()
    module = make(Difference(), same, kwarg_inputs={"second": same})
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(module(first, second=second), first - 2 * second)


@WAYS
def test_one_tensor_with_sizes_that_vary(make: Callable[..., Any]) -> None:
    same = example()
    rows = torch.export.Dim("rows", min=2, max=8)
    module = make(Difference(), same, same, dynamic_shapes=({0: rows}, {0: rows}))
    first, second = torch.randn(7, 4), torch.randn(7, 4)
    torch.testing.assert_close(module(first, second), first - 2 * second)


@WAYS
def test_sizes_of_a_shapes_collection(make: Callable[..., Any]) -> None:
    same = example()
    sizes = torch.export.ShapesCollection()
    sizes[same] = {0: torch.export.Dim("rows", min=2, max=8)}
    module = make(Difference(), same, same, dynamic_shapes=sizes)
    first, second = torch.randn(7, 4), torch.randn(7, 4)
    torch.testing.assert_close(module(first, second), first - 2 * second)


@WAYS
def test_a_buffer_of_the_model_as_input(make: Callable[..., Any]) -> None:
    model = Offset()
    module = make(model, model.offset)
    x = torch.randn(3, 4)
    torch.testing.assert_close(module(x), x - 2 * model.offset)


@pytest.mark.parametrize("make", [built_by_reference, compiled])
def test_views_of_memory_that_the_model_writes_to(make: Callable[..., Any]) -> None:
    same = example()
    before = same.clone()
    module = make(Accumulate(), same, same.view(3, 4))
    torch.testing.assert_close(same, before)
    total, x = torch.randn(3, 4), torch.randn(3, 4)
    expected, x_before = total + 1, x.clone()
    module(total, x)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(x, x_before)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*is deprecated:DeprecationWarning")
def test_one_tensor_as_two_inputs_of_torchscript() -> None:
    same = example()
    module = compiled(torch.jit.trace(Difference(), (same, same.clone())), same, same)
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(module(first, second), first - 2 * second)


def test_a_program_that_torch_export_mixed_up_is_refused(tmp_path: Path) -> None:
    same = example()
    mixed_up = torch.export.export(Difference(), (same, same))
    message = r"one tensor as its inputs 'first' and 'second'.*tensor\.clone\(\)"
    with pytest.raises(CompileError, match=message):
        trt_rt.build(mixed_up, backend="reference")
    with pytest.raises(CompileError, match=message):
        trt_rt.reference.build(mixed_up)
    with pytest.raises(CompileError, match=message):
        trt_rt.compile(mixed_up, backend="reference")
    path = tmp_path / "program.pt2"
    with pytest.raises(ArchiveError, match=message):
        trt_rt.save(mixed_up, path)
    assert not path.exists()
