"""Engines compute what their networks compute, whatever the process is set to, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from tests.reference import plans
from tests.reference.harness import Session
from tests.reference.plans import eager_affine
from trt_rt import reference as trt

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.float8_e4m3fn,
]


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_dynamic_batch(device: str, batch: int) -> None:
    session = Session(plans.affine(device=device), device)
    x = torch.randn(batch, 7)
    (y,) = session.run(x)
    torch.testing.assert_close(y.cpu(), eager_affine(x))


def test_shapes_may_alternate(device: str) -> None:
    session = Session(plans.affine(device=device), device)
    for batch in (2, 5, 2, 1, 5):
        x = torch.randn(batch, 7)
        (y,) = session.run(x)
        torch.testing.assert_close(y.cpu(), eager_affine(x))


def test_several_inputs_and_outputs(device: str) -> None:
    session = Session(plans.two(device), device)
    assert session.names == ["a", "b", "sum", "increment"]
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    total, increment = session.run(a, b)
    torch.testing.assert_close(total.cpu(), a + b)
    torch.testing.assert_close(increment.cpu(), b + 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_every_dtype_and_empty_tensors(device: str, dtype: torch.dtype, batch: int) -> None:
    session = Session(plans.copy(dtype, device), device)
    x = torch.randint(0, 2, (batch, 4)).to(dtype)
    (y,) = session.run(x)
    assert y.dtype == dtype
    assert torch.equal(y.cpu().float(), x.flip(0).float())


def test_tensors_without_dimensions(device: str) -> None:
    session = Session(trt.build(plans.Affine(), (torch.zeros(()),), device=device), device)
    assert session.engine.get_tensor_shape("x") == ()
    (y,) = session.run(torch.tensor(3.0))
    assert y.shape == ()
    assert y.item() == 7


def test_engine_without_inputs(device: str) -> None:
    session = Session(plans.constants(device), device)
    assert session.inputs == []
    numbers, half = session.run()
    assert numbers.tolist() == [0, 1, 2, 3]
    assert half.item() == 2.5


def test_engine_without_outputs(device: str) -> None:
    class Checks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> None:
            torch._check(x.to(torch.int64).item() == 3)

    session = Session(trt.build(Checks(), (torch.tensor(3.0),), device=device), device)
    assert session.names == ["x"]
    assert session.run(torch.tensor(3.0)) == ()
    session.bind_inputs(torch.tensor(4.0))
    assert not session.enqueue()


def test_parameters_buffers_and_constants(device: str) -> None:
    network = plans.convolutions()
    session = Session(plans.streaming(device), device)
    x = torch.randn(3, 1, 8, 8)
    (y,) = session.run(x)
    torch.testing.assert_close(y.cpu(), network(x).detach(), rtol=1e-3, atol=1e-3)


def test_attention_with_two_dynamic_dimensions() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    shapes = {"src": {0: Dim("batch", min=1, max=8), 1: Dim("time", min=1, max=8)}}
    session = Session(trt.build(layer, (torch.zeros(2, 5, 16),), dynamic_shapes=shapes))
    for shape in ((2, 5, 16), (1, 8, 16), (3, 1, 16)):
        x = torch.randn(shape)
        (y,) = session.run(x)
        torch.testing.assert_close(y, layer(x).detach(), rtol=1e-4, atol=1e-4)


def test_an_output_may_be_an_input_or_a_weight_or_twice_the_same(device: str) -> None:
    class Passes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.arange(3.0))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = x + 1
            return x, self.weight, y, y, x.transpose(0, 1)

    session = Session(trt.build(Passes(), (torch.zeros(2, 3),), device=device), device)
    x = torch.randn(2, 3)
    results = [result.cpu() for result in session.run(x)]
    for result, expected in zip(results, (x, torch.arange(3.0), x + 1, x + 1, x.t()), strict=True):
        assert torch.equal(result, expected)
    assert torch.equal(session.bound["x"].cpu(), x)


def test_what_the_caller_has_switched_on_does_not_matter() -> None:
    session = Session(plans.streaming())
    constants = Session(plans.constants())
    x = torch.randn(2, 1, 8, 8)
    (expected,) = session.run(x)
    expected = expected.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (y,) = session.run(x)
        assert torch.equal(y, expected)
    with torch.enable_grad():
        (y,) = session.run(x)
        assert torch.equal(y, expected)
    with torch.device("meta"):
        assert session.enqueue()
    torch.set_default_dtype(torch.float64)
    try:
        (half,) = constants.run()[1:]
    finally:
        torch.set_default_dtype(torch.float32)
    assert half.dtype == torch.float32
    assert not session.bound["output0"].is_inference()


def test_memory_that_allocators_make_during_a_run_is_ordinary() -> None:
    session = Session(plans.nonzero())
    session.run(torch.eye(3, 5))
    assert not session.bound["output0"].memory.is_inference()


def test_weights_that_are_one_tensor_are_stored_once() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(64, 64, bias=False)
            self.second = torch.nn.Linear(64, 64, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    network = Tied()
    plan = trt.build(network, (torch.zeros(2, 64),))
    assert len(plan) < 2 * 64 * 64 * 4
    x = torch.randn(2, 64)
    torch.testing.assert_close(Session(plan).run(x)[0], network(x).detach())


def test_the_exported_program_can_be_given_instead_of_the_module() -> None:
    program = torch.export.export(
        plans.Affine(), (torch.zeros(3, 7),), dynamic_shapes={"x": {0: plans.BATCH}}
    )
    x = torch.randn(5, 7)
    (y,) = Session(trt.build(program)).run(x)
    torch.testing.assert_close(y, eager_affine(x))


def test_inputs_by_keyword_and_in_containers() -> None:
    class Nested(torch.nn.Module):
        def forward(
            self, pair: tuple[torch.Tensor, torch.Tensor], scale: float, *, extra: torch.Tensor
        ) -> torch.Tensor:
            return pair[0] - pair[1] * scale + extra

    plan = trt.build(
        Nested(), ((torch.zeros(3), torch.zeros(3)), 2.0), kwarg_inputs={"extra": torch.zeros(3)}
    )
    session = Session(plan)
    assert len(session.inputs) == 3
    a, b, c = torch.randn(3), torch.randn(3), torch.randn(3)
    torch.testing.assert_close(session.run(a, b, c)[0], a - b * 2 + c)


def test_names_may_contain_anything() -> None:
    names = ['in "put\n\0', "ünï/\\{}%s"]
    plan = trt.build(plans.Affine(), (torch.zeros(3),), input_names=names[:1], output_names=names[1:])
    session = Session(plan)
    assert session.names == names
    assert session.run(torch.ones(3))[0].tolist() == [3, 3, 3]
    json = session.engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    assert "\n" not in json


def test_a_failing_layer_makes_the_run_fail_and_the_next_one_works(device: str) -> None:
    session = Session(plans.checked(device), device)
    (y,) = session.run(torch.ones(4))
    assert y.tolist() == [2, 2, 2, 2]
    session.bind_inputs(-torch.ones(4))
    assert not session.enqueue()
    assert "_assert_scalar" in session.logger.take_error()
    assert y.tolist() == [2, 2, 2, 2]
    assert session.run(torch.ones(4))[0].tolist() == [2, 2, 2, 2]


def test_execute_v2_takes_all_addresses_at_once(device: str) -> None:
    session = Session(plans.accumulate(device), device)
    x, cache = torch.ones(8, 4, device=device), torch.ones(8, 4, device=device)
    y = torch.empty(8, 4, device=device)
    addresses = [tensor.data_ptr() for tensor in (cache, x, y, cache)]
    assert session.context.execute_v2(addresses), session.logger.errors
    assert y.eq(2).all()
    assert cache.eq(2).all()
    assert not session.context.execute_v2(addresses[:2])
    assert "4 addresses" in session.logger.take_error()


def test_results_that_kernels_lay_out_differently_than_at_export_are_right() -> None:
    class Views(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            attention = torch.nn.functional.scaled_dot_product_attention(x, x, x)
            return attention.transpose(1, 2).reshape(attention.shape[0], -1, 8)

    x = torch.randn(2, 2, 3, 4)
    (y,) = Session(trt.build(Views(), (x,))).run(x)
    torch.testing.assert_close(y, Views()(x))
