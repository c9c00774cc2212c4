"""Optimization profiles."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from tests.reference import plans
from tests.reference.harness import Session
from tests.reference.plans import eager_affine
from trt_rt import reference as trt
from trt_rt.errors import CompileError


@pytest.fixture
def session(device: str) -> Session:
    return Session(plans.profiles(device), device)


def test_what_the_engine_says(session: Session) -> None:
    engine = session.engine
    assert engine.num_optimization_profiles == 2
    assert engine.get_tensor_profile_shape("x", 0) == [(1, 7), (2, 7), (4, 7)]
    assert engine.get_tensor_profile_shape("x", 1) == [(5, 7), (8, 7), (32, 7)]
    assert engine.get_tensor_shape("x") == (-1, 7)
    assert session.context.active_optimization_profile == 0


@pytest.mark.parametrize(("name", "profile"), [("x", 2), ("x", -1), ("output0", 0)])
def test_ranges_that_do_not_exist(session: Session, name: str, profile: int) -> None:
    shapes = session.engine.get_tensor_profile_shape(name, profile)
    assert len(shapes) == 3
    with pytest.raises(ValueError, match="__len__"):
        len(shapes[0])
    assert repr(name) in session.logger.take_error()


def test_shapes_fit_the_active_profile_only(session: Session) -> None:
    context = session.context
    session.run(torch.zeros(4, 7))
    assert not context.set_input_shape("x", (5, 7))
    assert "outside profile 0" in session.logger.take_error()
    assert context.set_optimization_profile_async(1, 0)
    assert context.active_optimization_profile == 1
    assert not context.set_input_shape("x", (4, 7))
    assert "outside profile 1" in session.logger.take_error()
    x = torch.randn(32, 7)
    torch.testing.assert_close(session.run(x)[0].cpu(), eager_affine(x))


def test_selecting_a_profile_unsets_shapes_and_keeps_addresses(session: Session) -> None:
    context = session.context
    session.run(torch.zeros(4, 7))
    assert context.all_binding_shapes_specified
    address = context.get_tensor_address("x")
    assert context.set_optimization_profile_async(1, 0)
    assert not context.all_binding_shapes_specified
    assert context.infer_shapes() == ["x"]
    assert context.get_tensor_shape("x") == (-1, 7)
    assert context.get_tensor_shape("output0") == (-1, 7)
    assert context.get_tensor_address("x") == address
    assert not session.enqueue()


@pytest.mark.parametrize("index", [2, -1])
def test_profiles_that_do_not_exist(session: Session, index: int) -> None:
    assert not session.context.set_optimization_profile_async(index, 0)
    assert f"profile {index} is not in [0, 2)" in session.logger.take_error()
    assert session.context.active_optimization_profile == 0


def test_two_contexts_are_independent(device: str) -> None:
    first = Session(plans.profiles(device), device)
    second = first.engine.create_execution_context()
    assert second.set_optimization_profile_async(1, 0)
    assert first.context.active_optimization_profile == 0
    assert first.context.set_input_shape("x", (3, 7))
    assert second.get_tensor_shape("x") == (-1, 7)
    assert second.engine is first.engine


def test_by_default_the_ranges_of_the_dimensions() -> None:
    engine = Session(plans.affine()).engine
    assert engine.num_optimization_profiles == 1
    assert engine.get_tensor_profile_shape("x", 0) == [(1, 7), (3, 7), (32, 7)]


def test_a_dimension_without_bounds() -> None:
    plan = trt.build(plans.Affine(), (torch.zeros(3, 7),), dynamic_shapes={"x": {0: Dim("batch")}})
    session = Session(plan)
    assert session.engine.get_tensor_profile_shape("x", 0) == [(0, 7), (3, 7), (2**31 - 1, 7)]
    assert session.run(torch.zeros(100, 7))[0].shape == (100, 7)


@pytest.mark.parametrize(
    ("profiles", "reason"),
    [
        ([], "profiles is empty"),
        ([{"y": ([1], [1], [1])}], "profile 0 names ['y'], and the inputs are ['x']"),
        ([{}], "profile 0 needs (min, opt, max) shapes of 'x'"),
        ([{"x": ([1, 7], [2, 7])}], "profile 0 must have (min, opt, max) of 'x', each of length 2"),
        ([{"x": ([1], [2], [3])}], "each of length 2"),
        ([{"x": ([4, 7], [2, 7], [8, 7])}], "min <= opt <= max broken for 'x'"),
        ([{"x": ([1, 7], [2, 7], [33, 7])}], "the exported network allows [1, 7] to [32, 7]"),
        ([{"x": ([0, 7], [2, 7], [8, 7])}], "the exported network allows [1, 7] to [32, 7]"),
        ([{"x": ([1, 6], [2, 7], [8, 8])}], "widen dynamic_shapes"),
    ],
)
def test_profiles_that_do_not_fit_the_network(profiles: list, reason: str) -> None:
    program = torch.export.export(
        plans.Affine(), (torch.zeros(3, 7),), dynamic_shapes={"x": {0: plans.BATCH}}
    )
    with pytest.raises(CompileError) as caught:
        trt.build(program, profiles=profiles)
    assert reason in str(caught.value)
