"""Scratch memory: how much a context needs, and contexts whose user provides it."""

from __future__ import annotations

import pytest
import torch

from tests.reference import plans
from tests.reference.harness import Session
from trt_rt import reference as trt

USER_MANAGED = trt.ExecutionContextAllocationStrategy.USER_MANAGED


@pytest.fixture
def session(device: str) -> Session:
    session = Session(plans.profiles(device), device, strategy=USER_MANAGED)
    session.bind_inputs(torch.ones(4, 7))
    session.bind_outputs()
    return session


def test_sizes_follow_the_profiles(session: Session) -> None:
    engine = session.engine
    sizes = [engine.get_device_memory_size_for_profile_v2(index) for index in (0, 1)]
    # relu, its double, and that plus one: two at a time.
    assert sizes == [2 * 4 * 7 * 4, 2 * 32 * 7 * 4]
    assert engine.device_memory_size_v2 == max(sizes)
    assert session.context.update_device_memory_size_for_shapes() == sizes[0]
    assert engine.get_device_memory_size_for_profile_v2(2) == 0
    assert "no profile 2" in session.logger.take_error()


def test_nothing_runs_without_memory(session: Session) -> None:
    assert not session.enqueue()
    assert "224 bytes are needed and 0 were given to set_device_memory" in session.logger.take_error()
    memory = torch.empty(224, dtype=torch.uint8, device=session.device)
    session.context.set_device_memory(memory.data_ptr(), 223)
    assert not session.enqueue()
    assert "223 were given" in session.logger.take_error()
    session.context.set_device_memory(memory.data_ptr(), 224)
    assert session.enqueue()
    assert session.result("output0").eq(3).all()
    session.context.set_device_memory(0, 0)
    assert not session.enqueue()


def test_misaligned_memory_is_refused(session: Session) -> None:
    session.context.set_device_memory(8, 1 << 20)
    assert "not aligned" in session.logger.take_error()
    assert not session.enqueue()


def test_sizes_for_shapes_need_shapes(session: Session) -> None:
    assert session.context.set_optimization_profile_async(1, 0)
    assert session.context.update_device_memory_size_for_shapes() == 0
    assert "['x'] are missing" in session.logger.take_error()


def test_other_contexts_ignore_it(device: str) -> None:
    session = Session(plans.profiles(device), device)
    session.context.set_device_memory(0, 0)
    severity, message = session.logger.messages[-1]
    assert severity == trt.ILogger.WARNING
    assert "ignored" in message
    session.run(torch.zeros(4, 7))


def test_the_strategy_can_come_in_a_runtime_config(device: str) -> None:
    engine = Session(plans.profiles(device), device).engine
    config = engine.create_runtime_config()
    strategy = config.get_execution_context_allocation_strategy()
    assert strategy == trt.ExecutionContextAllocationStrategy.STATIC
    config.set_execution_context_allocation_strategy(USER_MANAGED)
    for context in (
        engine.create_execution_context(config),
        engine.create_execution_context(runtime_config=config),
        engine.create_execution_context(USER_MANAGED),
    ):
        strategy = context.get_runtime_config().get_execution_context_allocation_strategy()
        assert strategy == USER_MANAGED


def test_data_dependent_and_unbounded_shapes_have_a_size() -> None:
    assert Session(plans.nonzero()).engine.device_memory_size_v2 > 0
    unbounded = {"x": {0: torch.export.Dim("a"), 1: torch.export.Dim("b")}}
    plan = trt.build(plans.Affine(), (torch.zeros(3, 7),), dynamic_shapes=unbounded)
    assert Session(plan).engine.device_memory_size_v2 > 0
