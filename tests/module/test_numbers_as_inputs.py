"""Numbers, and tensors of another device, as arguments."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tests.reference import plans
from trt_rt import TRTModule, reference
from trt_rt._core.arguments import as_kind_of
from trt_rt._core.io_tensor import IOTensor
from trt_rt.errors import InputTypeError, InputValueError
from trt_rt.module.moved_inputs import InputMover


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale


def _scaled(dtype: torch.dtype, device: str = "cpu") -> TRTModule:
    plan = reference.build(
        Scaled(), (torch.zeros(3, dtype=dtype), torch.zeros((), dtype=dtype)), device=device
    )
    return TRTModule(plan)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        (torch.float32, 3),
        (torch.float32, -2.5),
        (torch.float32, True),
        (torch.float32, torch.tensor(2.5, dtype=torch.float64)),
        (torch.float32, torch.tensor(3)),
        (torch.float16, 0.5),
        (torch.int64, 2**40),
        (torch.int64, True),
        (torch.int32, torch.tensor(7)),
    ],
)
@pytest.mark.parametrize("graphs", [False, True])
def test_numbers_are_mixed_in_as_pytorch_mixes_them(
    dtype: torch.dtype, number: Any, graphs: bool, device: str
) -> None:
    module = _scaled(dtype, device)
    module.configure(cuda_graphs=graphs)
    x = torch.arange(3, device=device).to(dtype)
    for _ in range(2):
        for scale in (number, torch.ones((), dtype=dtype, device=device), number):
            torch.testing.assert_close(module(x, scale), x * scale)


@pytest.mark.parametrize("number", [2.5, torch.tensor(2.5), 1j])
def test_no_fraction_for_an_integer_input(number: Any) -> None:
    module = _scaled(torch.int64)
    x = torch.arange(3)
    with pytest.raises(InputTypeError, match=r"'scale'.*needs torch.int64"):
        module(x, number)
    torch.testing.assert_close(module(x, 2), x * 2)


@pytest.mark.parametrize("number", [2**31, 2**70])
def test_a_number_that_the_dtype_cannot_hold(number: int) -> None:
    module = _scaled(torch.int32)
    x = torch.arange(3, dtype=torch.int32)
    with pytest.raises(InputValueError, match=r"'scale'.*does not fit"):
        module(x, number)
    torch.testing.assert_close(module(x, 2), x * 2)


def test_a_number_is_no_tensor_with_dimensions(module: TRTModule) -> None:
    with pytest.raises(InputTypeError, match=r"needs a torch\.Tensor"):
        module(3.0)


class Increment(torch.nn.Module):
    def forward(self, counter: torch.Tensor) -> torch.Tensor:
        return counter + 1


@pytest.mark.parametrize("number", [3, torch.tensor(3)])
def test_no_number_for_an_input_that_the_engine_writes_into(number: Any) -> None:
    plan = reference.build(
        Increment(), (torch.zeros(()),), output_names=["next"], aliases={"next": "counter"}
    )
    with pytest.raises(InputValueError, match="would swallow the write"):
        TRTModule(plan)(number)


_TARGET = IOTensor("x", "input", torch.float32, (3,))


def test_a_tensor_is_moved_with_one_warning() -> None:
    mover = InputMover("net")
    device = torch.device("meta")  # the only other device that every machine has
    with pytest.warns(UserWarning, match="engine 'net': input 'x'.* was on cpu and is copied to meta"):
        moved = as_kind_of(torch.zeros(3), _TARGET, device, mover)
    assert moved.device == device
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_kind_of(torch.zeros(3), _TARGET, device, mover).device == device


def test_no_tensor_is_moved_by_default_or_without_memory_or_cast() -> None:
    for move_input in (None, InputMover("net")):
        with pytest.raises(InputTypeError, match="casts nothing silently"):
            as_kind_of(torch.zeros(3, dtype=torch.float64), _TARGET, torch.device("meta"), move_input)
    with pytest.raises(InputValueError, match="moves nothing silently"):
        as_kind_of(torch.zeros(3), _TARGET, torch.device("meta"), None)
    for move_inputs in (False, True):
        module = TRTModule(plans.affine(), move_inputs=move_inputs)
        with pytest.raises(InputValueError, match="on meta"):
            module(torch.zeros(3, 7, device="meta"))


@pytest.mark.gpu
def test_a_module_moves_its_inputs_to_the_gpu() -> None:
    module = TRTModule(plans.affine(device="cuda"), move_inputs=True)
    x = torch.randn(3, 7)
    with pytest.warns(UserWarning, match="is copied to cuda:0"):
        result = module(x)
    torch.testing.assert_close(result.cpu(), plans.eager_affine(x))
    torch.testing.assert_close(module(-x).cpu(), plans.eager_affine(-x))
    with pytest.raises(InputValueError, match="moves nothing silently"):
        TRTModule(plans.affine(device="cuda"))(x)
