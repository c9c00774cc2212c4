"""Outputs that are written into the memory of an input."""

from __future__ import annotations

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import RecordingAllocator, Session
from trt_rt import reference as trt
from trt_rt.errors import CompileError


def test_an_input_changed_in_place_becomes_an_output(device: str) -> None:
    session = Session(plans.accumulate(device), device)
    assert session.names == ["cache", "x", "output0", "cache_out"]
    assert session.engine.get_aliased_input_tensor("cache_out") == "cache"
    assert session.engine.get_aliased_input_tensor("output0") is None
    assert session.engine.get_aliased_input_tensor("cache") is None
    cache, x = torch.randn(8, 4), torch.randn(8, 4)
    session.run(cache, x)
    assert session.enqueue()
    torch.testing.assert_close(session.bound["cache"].cpu(), cache + x + x)
    torch.testing.assert_close(session.result("output0").cpu(), x * 2)


def test_an_input_that_is_changed_and_returned_is_one_output(device: str) -> None:
    class Returned(torch.nn.Module):
        def forward(self, cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return cache.add_(x)

    plan = trt.build(Returned(), (torch.zeros(3), torch.zeros(3)), output_names=["new"], device=device)
    session = Session(plan, device)
    assert session.outputs == ["new"]
    (new,) = session.run(torch.ones(3), torch.ones(3))
    assert new.tolist() == [2, 2, 2]
    assert session.bound["cache"] is new


def test_a_network_that_returns_nothing_has_the_changed_input_as_its_output(device: str) -> None:
    class Silent(torch.nn.Module):
        def forward(self, cache: torch.Tensor, x: torch.Tensor) -> None:
            cache.add_(x)

    session = Session(trt.build(Silent(), (torch.zeros(3), torch.zeros(3)), device=device), device)
    assert session.outputs == ["cache_out"]
    session.run(torch.ones(3), torch.ones(3))
    assert session.bound["cache"].tolist() == [2, 2, 2]


def test_an_alias_that_is_asked_for(device: str) -> None:
    plan = trt.build(plans.Affine(), (torch.zeros(3),), aliases={"output0": "x"}, device=device)
    session = Session(plan, device)
    session.run(torch.ones(3))
    assert session.bound["x"].tolist() == [3, 3, 3]


def test_other_addresses_are_refused(device: str) -> None:
    session = Session(plans.accumulate(device), device)
    session.run(torch.zeros(8, 4), torch.ones(8, 4))
    elsewhere = torch.full((8, 4), -5.0, device=device)
    assert session.context.set_tensor_address("cache_out", elsewhere.data_ptr())
    assert not session.enqueue()
    assert "output 'cache_out' is aliased with input 'cache'" in session.logger.take_error()
    assert elsewhere.eq(-5).all()
    assert session.bound["cache"].eq(1).all()


def test_output_allocators_are_refused(device: str) -> None:
    session = Session(plans.accumulate(device), device)
    assert not session.context.set_output_allocator("cache_out", RecordingAllocator(session.device))
    assert "lies in the memory of input 'cache'" in session.logger.take_error()


def test_what_is_read_is_read_before_it_is_overwritten(device: str) -> None:
    class Swap(torch.nn.Module):
        def forward(
            self, a: torch.Tensor, b: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return b, a, a[:2]

    aliases = {"output0": "a", "output1": "b"}
    plan = trt.build(Swap(), (torch.zeros(3), torch.zeros(3)), aliases=aliases, device=device)
    session = Session(plan, device)
    (_, _, old) = session.run(torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6]))
    assert session.bound["a"].tolist() == [4, 5, 6]
    assert session.bound["b"].tolist() == [1, 2, 3]
    assert old.tolist() == [1, 2]


def test_an_input_replaced_by_another(device: str) -> None:
    class Store(torch.nn.Module):
        def forward(self, cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            cache.copy_(x)
            return x + 1

    session = Session(trt.build(Store(), (torch.zeros(3), torch.zeros(3)), device=device), device)
    session.run(torch.zeros(3), torch.ones(3))
    assert session.bound["cache"].tolist() == [1, 1, 1]


def test_a_part_of_an_input_with_a_dynamic_dimension(device: str) -> None:
    class Slot(torch.nn.Module):
        def forward(self, cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            cache[:, 1] = x
            return cache.sum()

    batch = plans.BATCH
    plan = trt.build(
        Slot(),
        (torch.zeros(3, 4), torch.zeros(3)),
        dynamic_shapes={"cache": {0: batch}, "x": {0: batch}},
        device=device,
    )
    session = Session(plan, device)
    total, _ = session.run(torch.zeros(5, 4), torch.ones(5))
    assert session.bound["cache"][:, 1].eq(1).all()
    assert total.item() == 5


def test_empty_tensors_need_no_memory(device: str) -> None:
    batch = torch.export.Dim("batch", min=0, max=8)
    plan = trt.build(
        plans.Accumulate(),
        (torch.zeros(2, 4), torch.zeros(2, 4)),
        dynamic_shapes={"cache": {0: batch}, "x": {0: batch}},
        device=device,
    )
    session = Session(plan, device)
    assert session.run(torch.zeros(0, 4), torch.zeros(0, 4))[0].shape == (0, 4)
    session.run(torch.zeros(2, 4), torch.ones(2, 4))
    assert session.bound["cache"].eq(1).all()


@pytest.mark.parametrize("partner", ["other", "whole", "length"])
def test_outputs_that_do_not_fit_cannot_be_aliased(partner: str) -> None:
    class Parts(torch.nn.Module):
        def forward(self, other: torch.Tensor, whole: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
            return whole[:2] + other + length

    with pytest.raises(CompileError, match="cannot lie in the memory"):
        trt.build(
            Parts(),
            (torch.zeros(2, dtype=torch.int32), torch.zeros(3), torch.tensor([1, 2])),
            shape_inputs=["length"],
            aliases={"output0": partner},
        )
