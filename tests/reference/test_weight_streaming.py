"""Weight streaming: a budget for the weights on the device, the others copied there in every run."""

from __future__ import annotations

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import Session

# Two convolutions with bias, and the scale, shift, mean and variance of a batch normalization.
WEIGHT_BYTES = 4 * (4 * 9 + 4 + 2 * 4 * 9 + 2 + 4 * 4)


@pytest.fixture
def session(device: str) -> Session:
    session = Session(plans.streaming(device), device)
    del session.context
    return session


def open_context(session: Session) -> None:
    session.context = session.engine.create_execution_context()


def test_without_a_budget_nothing_is_streamed(session: Session) -> None:
    engine = session.engine
    assert engine.streamable_weights_size == WEIGHT_BYTES
    assert engine.weight_streaming_budget_v2 == WEIGHT_BYTES
    assert engine.weight_streaming_scratch_memory_size == 0
    assert 0 < engine.get_weight_streaming_automatic_budget() <= WEIGHT_BYTES


@pytest.mark.parametrize("budget", [0, 100, 300, WEIGHT_BYTES - 1, WEIGHT_BYTES])
def test_results_are_the_same_with_every_budget(session: Session, budget: int) -> None:
    session.engine.weight_streaming_budget_v2 = budget
    assert session.engine.weight_streaming_budget_v2 == budget
    open_context(session)
    x = torch.randn(2, 1, 8, 8)
    for _ in range(2):
        (y,) = session.run(x)
        torch.testing.assert_close(y.cpu(), plans.convolutions()(x).detach(), rtol=1e-3, atol=1e-3)


def test_scratch_memory_is_part_of_the_device_memory(session: Session) -> None:
    engine = session.engine
    before = engine.device_memory_size_v2
    engine.weight_streaming_budget_v2 = 0
    assert engine.weight_streaming_scratch_memory_size == 4 * 2 * 4 * 9  # the largest weight
    assert engine.device_memory_size_v2 == before + engine.weight_streaming_scratch_memory_size
    assert engine.get_device_memory_size_for_profile_v2(0) == engine.device_memory_size_v2
    engine.weight_streaming_budget_v2 = WEIGHT_BYTES
    assert engine.device_memory_size_v2 == before


def test_a_budget_is_clamped(session: Session) -> None:
    session.engine.weight_streaming_budget_v2 = 10**12
    assert session.engine.weight_streaming_budget_v2 == WEIGHT_BYTES
    assert session.logger.errors == []


def test_a_negative_budget_is_refused(session: Session) -> None:
    session.engine.weight_streaming_budget_v2 = -1
    assert "-1 is negative" in session.logger.take_error()
    assert session.engine.weight_streaming_budget_v2 == WEIGHT_BYTES


def test_the_budget_cannot_change_while_contexts_exist(session: Session) -> None:
    open_context(session)
    session.engine.weight_streaming_budget_v2 = 0
    assert "1 execution contexts exist" in session.logger.take_error()
    assert session.engine.weight_streaming_budget_v2 == WEIGHT_BYTES
    del session.context
    session.engine.weight_streaming_budget_v2 = 0
    assert session.engine.weight_streaming_budget_v2 == 0


def test_engines_that_were_not_built_for_it(device: str) -> None:
    session = Session(plans.affine(device=device), device)
    del session.context
    assert session.engine.streamable_weights_size == 0
    assert session.engine.weight_streaming_budget_v2 == 0
    session.engine.weight_streaming_budget_v2 = 0
    assert "without streamable weights" in session.logger.take_error()
