"""`tensor_from_address`: a tensor over memory that something else owns."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
import torch

from trt_rt._core.dlpack import tensor_from_address
from trt_rt.errors import InputTypeError

CPU = torch.device("cpu")

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
]


def over(tensor: torch.Tensor) -> torch.Tensor:
    return tensor_from_address(tensor.data_ptr(), tensor.shape, tensor.dtype, tensor.device, tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype: torch.dtype) -> None:
    source = torch.randint(0, 2, (3, 5)).to(dtype)
    tensor = over(source)
    assert type(tensor) is torch.Tensor
    assert (tensor.dtype, tensor.shape, tensor.stride(), tensor.device) == (dtype, (3, 5), (5, 1), CPU)
    assert tensor.data_ptr() == source.data_ptr()
    torch.testing.assert_close(tensor.float(), source.float())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.int16, torch.uint32], ids=str)
def test_dtypes_that_tensorrt_lacks(dtype: torch.dtype) -> None:
    with pytest.raises(InputTypeError, match=str(dtype)):
        over(torch.zeros(3, dtype=dtype))


@pytest.mark.parametrize(
    "shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1), (2,) * 8, (0,) * 8, (7, 1, 5)], ids=str
)
def test_shapes(shape: tuple[int, ...]) -> None:
    source = torch.randn(shape)
    tensor = over(source)
    assert tensor.shape == source.shape
    assert tensor.is_contiguous()
    torch.testing.assert_close(tensor, source)


def test_no_address_is_needed_for_no_elements() -> None:
    assert tensor_from_address(0, (0, 7), torch.float32, CPU).shape == (0, 7)


@pytest.mark.parametrize(
    ("address", "shape"),
    [(0, (1,)), (0, ()), (64, (-1,)), (64, (2, -3)), (64, (1,) * 9), (0, (-1, 0))],
    ids=str,
)
def test_what_cannot_be(address: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        tensor_from_address(address, shape, torch.float32, CPU)


@pytest.mark.parametrize(
    ("address", "shape"),
    [
        ("64", (1,)),
        (None, (1,)),
        (64, None),
        (64, ("a",)),
        (-1, (1,)),
        (2**64, (1,)),
        (64, (2**63,)),
    ],
    ids=str,
)
def test_what_is_no_address_or_shape(address: Any, shape: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        tensor_from_address(address, shape, torch.float32, CPU)


class Owner:
    """Something that can be watched."""


def test_the_owner_lives_as_long_as_the_memory_is_used() -> None:
    memory = torch.randn(6)
    owner = Owner()
    alive = weakref.ref(owner)
    tensor = tensor_from_address(memory.data_ptr(), (2, 3), torch.float32, CPU, owner)
    del owner
    view = tensor[1].t()
    del tensor
    gc.collect()
    assert alive() is not None
    torch.testing.assert_close(view, memory[3:])
    del view
    gc.collect()
    assert alive() is None


def test_a_failure_keeps_no_owner() -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    with pytest.raises(ValueError, match="address 0"):
        tensor_from_address(0, (3,), torch.float32, CPU, owner)
    del owner
    gc.collect()
    assert alive() is None


def test_the_owner_is_let_go_on_any_thread() -> None:
    memory = torch.randn(6)
    owner = Owner()
    alive = weakref.ref(owner)
    held = [tensor_from_address(memory.data_ptr(), (6,), torch.float32, CPU, owner)]
    del owner
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert alive() is None


def test_writes_go_both_ways() -> None:
    source = torch.zeros(3)
    tensor = over(source)
    tensor.fill_(2)
    assert source.tolist() == [2, 2, 2]
    source.fill_(3)
    assert tensor.tolist() == [3, 3, 3]


def test_it_cannot_be_resized() -> None:
    source = torch.zeros(3)
    with pytest.raises(RuntimeError, match="resizable"):
        over(source).resize_(1000)
    with pytest.raises(RuntimeError, match="resizable"):
        over(source).untyped_storage().resize_(0)


def test_it_is_an_ordinary_tensor() -> None:
    source = torch.randn(3)
    tensor = over(source)
    weight = torch.ones(3, requires_grad=True)
    (tensor * weight).sum().backward()
    torch.testing.assert_close(weight.grad, source)
    assert not tensor.requires_grad
