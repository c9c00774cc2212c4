"""Shape tensors: inputs in host memory whose values decide about shapes."""

from __future__ import annotations

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import Session
from trt_rt import reference as trt

INTEGERS = [torch.int32, torch.int64]


@pytest.fixture(params=INTEGERS, ids=str)
def session(request: pytest.FixtureRequest, device: str) -> Session:
    return Session(plans.shape_tensor(request.param, device), device)


def length(session: Session, value: int) -> torch.Tensor:
    return torch.tensor([value], dtype=session.dtype("length"))


def test_what_the_engine_says(session: Session) -> None:
    engine = session.engine
    assert engine.get_tensor_location("length") == trt.TensorLocation.HOST
    assert engine.get_tensor_location("x") == trt.TensorLocation.DEVICE
    assert engine.is_shape_inference_io("length")
    assert not engine.is_shape_inference_io("x")
    # TensorRT calls these parameters name and profile_index, the wrong way round.
    assert engine.get_tensor_profile_values(0, "length") == [[1], [4], [9]]
    assert engine.get_tensor_profile_values(1, "length") == [[10], [12], [20]]
    assert engine.get_tensor_profile_values(0, "x") == []
    assert engine.get_tensor_profile_shape("length", 0) == [(1,), (1,), (1,)]


@pytest.mark.parametrize("value", [1, 4, 9])
def test_results(session: Session, value: int) -> None:
    x = torch.randn(4)
    (y,) = session.run(x, length(session, value))
    assert torch.equal(y.cpu(), x[torch.arange(value) % 4])


def test_new_values_at_the_same_address_are_noticed(session: Session) -> None:
    x = torch.randn(4)
    session.run(x, length(session, 3))
    session.bound["length"][0] = 7
    assert session.context.get_tensor_shape("output0") == (7,)
    session.bind_outputs()
    assert session.enqueue()
    assert torch.equal(session.result("output0").cpu(), x[torch.arange(7) % 4])


def test_the_address_is_needed_for_shapes(session: Session) -> None:
    x = torch.zeros(4, device=session.device)
    assert session.context.set_tensor_address("x", x.data_ptr())
    assert session.context.infer_shapes() == ["length"]
    assert session.context.get_tensor_shape("output0") == (-1,)
    assert session.logger.errors == []
    assert not session.enqueue()
    assert "['length'] are missing" in session.logger.take_error()


@pytest.mark.parametrize("value", [0, 10, -3])
def test_values_outside_the_profile(session: Session, value: int) -> None:
    session.run(torch.zeros(4), length(session, 3))
    session.bound["length"][0] = value
    with pytest.raises(RuntimeError, match="outside profile 0"):
        session.context.infer_shapes()
    session.logger.messages.clear()
    assert not session.enqueue()
    assert f"values [{value}] of shape tensor 'length' are outside profile 0" in session.logger.take_error()
    assert session.context.set_optimization_profile_async(1, 0)
    if value == 10:
        assert session.context.get_tensor_shape("output0") == (10,)


def test_alignment_is_that_of_the_elements(session: Session) -> None:
    dtype = session.dtype("length")
    values = torch.zeros(64 // dtype.itemsize, dtype=dtype)
    values[1] = 5
    assert session.context.set_tensor_address("length", values[1:].data_ptr())
    assert session.context.get_tensor_shape("output0") == (5,)
    assert not session.context.set_tensor_address("length", values.data_ptr() + 1)
    assert f"not aligned to {dtype.itemsize} bytes" in session.logger.take_error()


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_arithmetic_with_constants_and_several_values(device: str, dtype: torch.dtype) -> None:
    class Expanded(torch.nn.Module):
        def forward(self, x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
            rows, columns = (sizes + torch.tensor([1, 2])).tolist()
            return x.expand(rows, columns) + x.sum()

    example = torch.tensor([2, 3], dtype=dtype)
    plan = trt.build(Expanded(), (torch.ones(1, 1), example), shape_inputs=["sizes"], device=device)
    session = Session(plan, device)
    (y,) = session.run(torch.ones(1, 1), torch.tensor([4, 1], dtype=dtype))
    assert y.shape == (5, 3)
    assert y.eq(2).all()


def test_values_used_with_data_on_the_device(device: str) -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
            return x * factors

    plan = trt.build(Scaled(), (torch.ones(2), torch.tensor([1, 2])), shape_inputs=["factors"], device=device)
    (y,) = Session(plan, device).run(torch.tensor([1.0, 2.0]), torch.tensor([3, 4]))
    assert y.tolist() == [3, 8]


def test_without_ranges_every_value_is_allowed() -> None:
    class Rows(torch.nn.Module):
        def forward(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return x.expand(rows.item(), 2)

    plan = trt.build(Rows(), (torch.ones(1, 2), torch.tensor(3)), shape_inputs=["rows"])
    session = Session(plan)
    limits = torch.iinfo(torch.int64)
    assert session.engine.get_tensor_profile_values(0, "rows") == [[limits.min], [3], [limits.max]]
    assert session.run(torch.ones(1, 2), torch.tensor(0))[0].shape == (0, 2)
